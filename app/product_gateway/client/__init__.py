"""Talks to a gateway over HTTP, for people and shell scripts: the commands sync, status, cancel and history.

commands   the commands and their options
session    what each of them does, and how it ends
progress   what is seen while a sync is watched
words      syncs, histories and problems as people read them
gateway    requests to a gateway, each made again where that is safe
bodies     what a gateway answers, as far as it is looked at
"""
