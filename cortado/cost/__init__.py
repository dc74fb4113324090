"""Cost: energy, emissions and money of training and serving a network, as estimates with their uncertainty."""
