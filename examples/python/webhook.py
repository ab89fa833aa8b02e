"""Verifies a message from Tallylight, signed by the Standard Webhooks specification. No packages.

    python3 webhook.py < request.json

The request is an object of `secret`, `headers` (names in lower case) and `body`, the text as it
came. Prints the message's type and id; a message that is not genuine ends with an error.
"""

import base64
import hashlib
import hmac
import json
import sys
import time


def verify(secret, headers, body, now):
    """The message in `body`, which are the bytes as they came; ValueError if it is not genuine."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    message_id, at = headers["webhook-id"], headers["webhook-timestamp"]
    if abs(now - int(at)) > 300:
        raise ValueError("too old, or from the future")
    signed = b".".join([message_id.encode(), at.encode(), body])
    expected = "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    if not any(hmac.compare_digest(expected, given) for given in headers["webhook-signature"].split()):
        raise ValueError("the signature is wrong")
    return json.loads(body)


if __name__ == "__main__":
    request = json.load(sys.stdin)
    body = request["body"].encode()
    message = verify(request["secret"], request["headers"], body, time.time())
    print(json.dumps({"type": message["type"], "id": message["id"]}))
