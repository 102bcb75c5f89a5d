"""The configuration: typed schema, range and cross-field rules, registration with Hydra. Free of torch."""
