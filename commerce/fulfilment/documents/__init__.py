"""What is printed for a parcel: its label, the list in its box, the list that it is picked by. Data in, PDF out.

The same data gives the same bytes. No function here does any I/O but reading the fonts, once; all of them compute, for
milliseconds a page: call them in a thread.
"""

from __future__ import annotations

from commerce.fulfilment.documents.label import label, labels
from commerce.fulfilment.documents.model import LabelData, PackingLine, PackingList
from commerce.fulfilment.documents.packing_list import packing_list
from commerce.fulfilment.documents.pick_list import pick_list

__all__ = ["LabelData", "PackingLine", "PackingList", "label", "labels", "packing_list", "pick_list"]
