"""kuaidi100 (快递100), which follows the parcels of many carriers that the desk books by itself."""

from commerce.shipping.carriers.kuaidi100.adapter import Kuaidi100, Kuaidi100Carrier
from commerce.shipping.carriers.kuaidi100.settings import Kuaidi100Account

__all__ = ["Kuaidi100", "Kuaidi100Account", "Kuaidi100Carrier"]
