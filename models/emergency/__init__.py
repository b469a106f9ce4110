"""Emergency response: who is sent where, and which signals he asks for a green. Pure."""
