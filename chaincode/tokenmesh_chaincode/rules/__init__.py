"""The rules of the token economy: what each operation does to state, and who may do it."""
