"""kuaidi100 (快递100), which follows the parcels of many carriers that the desk books by itself."""

from commerce.shipping.carriers.kuaidi100.adapter import Kuaidi100, Kuaidi100Carrier
from commerce.shipping.carriers.kuaidi100.settings import Account

__all__ = ["Account", "Kuaidi100", "Kuaidi100Carrier"]
