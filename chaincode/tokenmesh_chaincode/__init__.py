"""The bottom of tokenmesh: documents, and the rules of the token economy."""
