"""Studies: questions about how networks train, with what it takes to answer them."""
