"""Waiting rooms: the order in which customers are let into a sale, and the draw of their places."""
