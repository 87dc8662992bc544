"""SF Express (顺丰), through its open platform, for a shop that pays by the month and sends within mainland China."""

from commerce.shipping.carriers.sf_express.adapter import SfExpress
from commerce.shipping.carriers.sf_express.settings import SfExpressAccount

__all__ = ["SfExpress", "SfExpressAccount"]
