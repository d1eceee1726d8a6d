#!/bin/sh
# Runs the example job and shows what came home. Wants the program as its
# argument, and leaves everything in the working directory's target/demo.
set -eu
agent=$1
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p target/demo
cd target/demo
rm -rf results records

echo "\$ testflinger-agent run job.yaml -c testflinger-agent.conf"
"$agent" run "$here/job.yaml" -c "$here/testflinger-agent.conf"

cd results/*-*
echo
echo "what came home, in target/demo/results/$(basename "$PWD"):"
ls -l | sed 1d
echo
echo "artifacts.tar.gz:"
tar tzf artifacts.tar.gz
echo
echo "result.json:"
cut -c 1-300 result.json
echo
