"""tokenmesh: every service has a wallet, and a call costs tokens."""
