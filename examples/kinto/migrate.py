"""Runs `kinto migrate` in one region at a time.

All regions start at once and migrate the same database, the writer's. Kinto's migrations take no lock of their own,
so this takes one first: PostgreSQL releases it when the connection ends, however it ends.
"""

import os
import subprocess
import sys

import psycopg2

LOCK = 0x6B696E746F  # Any number that every region uses; this one spells "kinto".

connection = psycopg2.connect(os.environ["DATABASE_URL"])
with connection.cursor() as cursor:
    cursor.execute("SELECT pg_advisory_lock(%s)", (LOCK,))
    sys.exit(subprocess.call(["kinto", "migrate"]))
