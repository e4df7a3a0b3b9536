"""Small scale first: a search for the settings of training, on some of the episodes and few steps."""
