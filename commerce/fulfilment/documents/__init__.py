"""Documents as PDF: labels, packing lists, pick lists. Equal data is drawn as equal bytes.

Drawing takes milliseconds of computing per page: call it in a thread. It does no I/O except reading the fonts once.
Only `model` can be imported without the extra `fulfilment`.
"""
