# sitecustomize of moto's Python. moto looks whether a key is there and then writes it, in threads: of creates at the same moment
# several may win, and an agent's probe would refuse it, rightly. Here conditional requests come one at a time, each with its body read
# before, so that a peer that hangs holds up nobody.
import io
import threading

import moto.server as server

serve, turn = server.run_simple, threading.Lock()


def one_by_one(app):
    def call(environ, start_response):
        if "HTTP_IF_NONE_MATCH" not in environ and "HTTP_IF_MATCH" not in environ:
            return app(environ, start_response)
        if "CONTENT_LENGTH" in environ:
            body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"] or 0))
            environ["wsgi.input"] = io.BytesIO(body)
        with turn:
            return app(environ, start_response)

    return call


server.run_simple = lambda host, port, app, **more: serve(host, port, one_by_one(app), **more)
