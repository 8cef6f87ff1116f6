"""The bundled models, one module a domain."""
