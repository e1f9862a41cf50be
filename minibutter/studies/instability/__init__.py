"""Instabilities of gradient descent: where they begin, and why some of them stay bounded."""
