"""Example models of five fields of physics, one module a domain."""
