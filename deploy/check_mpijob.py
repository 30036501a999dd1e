"""Checks deploy/mpijob.yaml: the fields of an MPIJob by their names, and its pods with kubernetes-validate, as strictly as others."""

import sys

import kubernetes_validate
import yaml

# The fields of kubeflow.org/v2beta1 (mpi-operator, pkg/apis/kubeflow/v2beta1/types.go), without those of pods.
FIELDS = {
    "": {"apiVersion", "kind", "metadata", "spec"},
    "spec": {
        "slotsPerWorker", "runLauncherAsWorker", "runPolicy", "mpiReplicaSpecs", "sshAuthMountPath",
        "launcherCreationPolicy", "mpiImplementation",
    },
    "spec.runPolicy": {
        "cleanPodPolicy", "ttlSecondsAfterFinished", "activeDeadlineSeconds", "backoffLimit", "schedulingPolicy", "suspend",
        "managedBy",
    },
    "spec.mpiReplicaSpecs": {"Launcher", "Worker"},
    "spec.mpiReplicaSpecs.Launcher": {"replicas", "template", "restartPolicy"},
    "spec.mpiReplicaSpecs.Worker": {"replicas", "template", "restartPolicy"},
}


def main() -> None:
    path, version = sys.argv[1:]
    with open(path, encoding="utf-8") as file:
        job = yaml.safe_load(file)
    if (job["apiVersion"], job["kind"]) != ("kubeflow.org/v2beta1", "MPIJob"):
        sys.exit(f"{path}: not an MPIJob of kubeflow.org/v2beta1")
    for place, known in FIELDS.items():
        part = job
        for name in filter(None, place.split(".")):
            part = part[name]
        if unknown := set(part) - known:
            sys.exit(f"{path}: {place or 'the job'} has no {', '.join(sorted(unknown))}")
    replicas = job["spec"]["mpiReplicaSpecs"]
    for name, replica in replicas.items():
        if replica.get("restartPolicy", "Never") not in ("Never", "OnFailure"):
            sys.exit(f"{path}: {name} has a restartPolicy that the operator does not take")
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name.lower()}, **replica["template"]}
        try:
            kubernetes_validate.validate(pod, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            sys.exit(f"{path}: {name}: {error.message}")
    slots = replicas["Worker"]["replicas"] * job["spec"]["slotsPerWorker"]
    arguments = replicas["Launcher"]["template"]["spec"]["containers"][0]["args"]
    if arguments[:2] != ["-n", str(slots)]:
        sys.exit(f"{path}: there are {slots} slots, and mpirun is told {' '.join(arguments[:2])}")


main()
