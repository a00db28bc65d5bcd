"""An object store that speaks S3 in a process of its own: moto's server, which checks signatures and policies here.

    python s3_server.py BUCKET [CERTIFICATE KEY]

It prints its URL, and the id and the secret of the only key, which may do everything in that bucket; it ends with its
standard input.
"""

import json
import logging
import os
import sys

os.environ["INITIAL_NO_AUTH_ACTION_COUNT"] = (
    "4"  # as many as there are below; from then on a key is asked for
)
os.environ.update(AWS_ACCESS_KEY_ID="none", AWS_SECRET_ACCESS_KEY="none", AWS_DEFAULT_REGION="us-east-1")

import boto3
from moto.server import ThreadedMotoServer

POLICY = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}],
}


def main(bucket: str) -> None:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for each request
    server = ThreadedMotoServer(os.environ.get("ML_ASSETS_TEST_HOST", "127.0.0.1"), 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    iam, s3 = (boto3.client(name, endpoint_url=url) for name in ("iam", "s3"))
    s3.create_bucket(Bucket=bucket)
    iam.create_user(UserName="ml")
    key = iam.create_access_key(UserName="ml")["AccessKey"]
    iam.put_user_policy(UserName="ml", PolicyName="all", PolicyDocument=json.dumps(POLICY))
    print(url, key["AccessKeyId"], key["SecretAccessKey"], flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
