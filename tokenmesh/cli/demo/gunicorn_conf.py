"""How gunicorn serves the shop's Flask services; it reads this file by its path (``--config``)."""

worker_class = "gthread"
threads = 8
loglevel = "warning"
graceful_timeout = 5
# Newer versions open a socket in the user's home to be controlled by, one for all of them. Older ones do not
# know the setting and pass over it.
control_socket_disable = True
