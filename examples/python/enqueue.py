"""Enqueues jobs from Python, in the service's own transaction: order and jobs become true together.

    pip install -r requirements.txt
    DATABASE_URL=postgres://shop:...@host/tallylight python3 enqueue.py 7

The role needs `GRANT tallylight_producer TO shop`. What is called are the SQL functions that
docs/producers.md describes; the jobs are calls of the shop's own services, which Tallylight makes
until they are answered (docs/calls.md: `http_call.allow` of the workers has to list the address).
Prints what became of each job as one line of JSON.
"""

import json
import os
import sys

import psycopg
from psycopg.types.json import Jsonb


def call(path: str, body: dict) -> dict:
    """Arguments of an `http_call`."""
    return {"method": "POST", "url": f"https://shop.example{path}", "body": body}


def place_order(db: psycopg.Connection, number: int) -> dict:
    with db.transaction():
        db.execute("INSERT INTO product.orders (number) VALUES (%s)", (number,))
        job, is_new = db.execute(
            "SELECT id, is_new FROM tallylight.enqueue_job(%s, %s, %s)",
            ("http_call", Jsonb(call("/mails", {"order": number})), Jsonb({"key": f"order-{number}"})),
        ).fetchone()
        packs = [
            {"kind": "http_call", "args": call("/packs", {"order": number, "item": item})}
            for item in (1, 2)
        ]
        batch = db.execute(
            "SELECT id FROM tallylight.enqueue_many(%s) ORDER BY n", (Jsonb(packs),)
        ).fetchall()
    return {"job": str(job), "is_new": is_new, "batch": [str(row[0]) for row in batch]}


def refused(db: psycopg.Connection) -> str:
    """A refusal says what is wrong; SQLSTATE 22023. As after any failed statement, the transaction
    goes on only from a savepoint, which `db.transaction()` sets."""
    try:
        with db.transaction():
            db.execute("SELECT tallylight.enqueue('HTTP call')")
    except psycopg.errors.InvalidParameterValue as error:
        return error.diag.message_primary
    raise AssertionError("it was accepted")


def main() -> None:
    with psycopg.connect(os.environ["DATABASE_URL"]) as db:
        told = place_order(db, int(sys.argv[1]))
        told["refused"] = refused(db)
    print(json.dumps(told))


if __name__ == "__main__":
    main()
