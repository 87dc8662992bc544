"""Tests of the knowledge base, and questions that measure its search.

`questions_dev.csv` is for tuning and `questions_held_out.csv` for measuring only. The questions were invented, in the
words of customers and staff, by the author of the articles and without any search at hand. Real logs are to replace
them once there are some.
"""
