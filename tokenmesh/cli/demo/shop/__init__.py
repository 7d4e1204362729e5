"""The shop: ten services in the call graph of the well-known Online Boutique, each with its own wallet.

=================  =========  ===============================================================================
service            served by  pays
=================  =========  ===============================================================================
frontend           FastAPI    ad, recommendation, productcatalog, cart, shipping, currency, checkout
productcatalog     Flask
recommendation     Flask      productcatalog
ad                 Flask
currency           Flask, 2 workers
payment            Flask
cart               FastAPI
checkout           FastAPI    productcatalog, cart, currency, payment, shipping, email
shipping           FastAPI
email              FastAPI
=================  =========  ===============================================================================

Only the call graph is taken from there. The modules show how ``@priced`` and ``@calls`` read: fixed prices,
a price that depends on the request (payment), a price known after the work (shipping), a call that is free
for some (ad), work that is not owed although its status is 200 (payment, checkout).
"""
