"""What curation is worth: the same training on everything uploaded, and on a random drop of the same size."""
