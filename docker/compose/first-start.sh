#!/bin/sh
# Once: bucket, keys and repository. The private identity goes where the daemon cannot see it. A later start changes nothing.
set -eu
keys=${KEYS:-/keys} identity=${IDENTITY:-/identity}
python3 - <<'PYTHON'
import os, time, boto3
store = boto3.client("s3", endpoint_url=os.environ["KPBACKUP_REPOSITORY__ENDPOINT_URL"])
bucket = os.environ["KPBACKUP_REPOSITORY__URL"].removeprefix("s3://").split("/")[0]
deadline = time.monotonic() + 120
while bucket not in [one["Name"] for one in store.list_buckets()["Buckets"]]:
    try:
        store.create_bucket(Bucket=bucket)
    except Exception:  # the store is still starting
        if time.monotonic() > deadline:
            raise
        time.sleep(1)
PYTHON
if [ ! -e "$identity/identity.txt" ]; then
  kpbackup init --if-missing --keys "$keys"
  mv "$keys/identity.txt" "$identity/identity.txt"
fi
