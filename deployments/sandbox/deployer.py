"""The Deployment controller: acts on the store as `rollout` says. Follows sync.go, recreate.go, rolling.go, progress.go."""

from __future__ import annotations

from typing import Any

from deployments.sandbox import rollout
from deployments.sandbox.faults import Pace
from deployments.sandbox.recorder import Recorder
from deployments.sandbox.replication import age
from deployments.sandbox.resources import DEPLOYMENTS, PODS, REPLICASETS
from deployments.sandbox.store import Store, editable, now

JsonObject = dict[str, Any]


class Deployer:
    def __init__(self, store: Store, recorder: Recorder, pace: Pace) -> None:
        self._store, self._recorder, self._pace = store, recorder, pace

    def reconcile(self, namespace: str, name: str) -> float | None:
        """One look at one Deployment; returns when its progress deadline wants another look."""
        deployment = self._store.get(DEPLOYMENTS, namespace, name)
        if deployment is None:
            return None
        sets = self._store.owned(REPLICASETS, deployment)
        if "deletionTimestamp" in deployment["metadata"]:
            return self._write_status(deployment)
        deployment = self._check_paused(deployment)
        active = [one for one in sets if one["spec"]["replicas"] > 0]
        if deployment["spec"].get("paused") or rollout.needs_scaling(deployment, active):
            new = self._new_set(deployment, create=False)
            self._rescale(deployment, new)
            if deployment["spec"].get("paused"):
                self._clean_up(deployment, new)
        elif deployment["spec"]["strategy"]["type"] == "Recreate":
            self._recreate(deployment)
        else:
            self._roll(deployment)
        return self._write_status(self._store.must_get(DEPLOYMENTS, namespace, name))

    # ------------------------------------------------------------ strategies
    def _recreate(self, deployment: JsonObject) -> None:
        new = self._new_set(deployment, create=False)
        old = self._old_sets(deployment, new)
        running = [one for one in old if one["spec"]["replicas"] > 0]
        for one in running:
            self._resize(deployment, one, 0)
        if running or self._old_pods_run(old):
            return
        new = self._new_set(deployment, create=True)
        if new and new["spec"]["replicas"] != deployment["spec"]["replicas"]:
            self._resize(deployment, new, deployment["spec"]["replicas"])
        self._clean_up(deployment, new)

    def _old_pods_run(self, old: list[JsonObject]) -> bool:
        if rollout.counted(old, "replicas") > 0:
            return True
        return any(
            pod["status"].get("phase") not in ("Failed", "Succeeded")
            for one in old
            for pod in self._store.owned(PODS, one)
        )

    def _roll(self, deployment: JsonObject) -> None:
        new = self._new_set(deployment, create=True)
        old = self._old_sets(deployment, new)
        if new is None:
            return
        size = new["spec"]["replicas"]
        wanted = deployment["spec"]["replicas"]
        target = wanted if size > wanted else rollout.size_for_new(deployment, [*old, new], size)
        if target != size:
            self._resize(deployment, new, target)
            return
        smaller = rollout.sizes_for_old(deployment, new, old)
        for one in old:
            if one["metadata"]["name"] in smaller:
                self._resize(deployment, one, smaller[one["metadata"]["name"]])
        if not smaller:
            self._clean_up(deployment, new)

    def _rescale(self, deployment: JsonObject, new: JsonObject | None) -> None:
        sets = self._store.owned(REPLICASETS, deployment)
        active = [one for one in sets if one["spec"]["replicas"] > 0]
        latest = active or ([new] if new else [])
        if len(latest) == 1:
            self._resize(deployment, latest[0], deployment["spec"]["replicas"])
        elif rollout.is_saturated(deployment, new):
            for one in self._old_sets(deployment, new):
                if one["spec"]["replicas"] > 0:
                    self._resize(deployment, one, 0)
        elif deployment["spec"]["strategy"]["type"] == "RollingUpdate":
            sizes = rollout.proportional_sizes(deployment, active)
            for one in active:
                self._resize(deployment, one, sizes[one["metadata"]["name"]])

    # ------------------------------------------------------------ ReplicaSets
    def _old_sets(self, deployment: JsonObject, new: JsonObject | None) -> list[JsonObject]:
        uid = new["metadata"]["uid"] if new else ""
        return [one for one in self._store.owned(REPLICASETS, deployment) if one["metadata"]["uid"] != uid]

    def _new_set(self, deployment: JsonObject, *, create: bool) -> JsonObject | None:
        """The ReplicaSet of the current template, with its annotations up to date; made if wanted."""
        sets = self._store.owned(REPLICASETS, deployment)
        new = rollout.new_set_of(deployment, sets)
        old = [one for one in sets if new is None or one["metadata"]["uid"] != new["metadata"]["uid"]]
        number = max((rollout.revision(one) for one in old), default=0) + 1
        if new is None:
            if not create:
                return None
            new = self._make_set(deployment, old, number)
        else:
            new = self._adopt(deployment, new, number)
        self._note_revision(deployment, rollout.revision(new))
        return new

    def _adopt(self, deployment: JsonObject, new: JsonObject, number: int) -> JsonObject:
        def write(one: JsonObject) -> None:
            one["metadata"]["annotations"] = rollout.new_annotations(deployment, one, number)
            if one["spec"].get("minReadySeconds", 0) != deployment["spec"].get("minReadySeconds", 0):
                one["spec"]["minReadySeconds"] = deployment["spec"].get("minReadySeconds", 0)
                one["metadata"]["generation"] += 1

        meta = new["metadata"]
        found = self._store.edit(REPLICASETS, meta["namespace"], meta["name"], write) or new
        if rollout.condition(deployment["status"], "Progressing") is None:
            self._progress(deployment, "FoundNewReplicaSet", f'Found new replica set "{meta["name"]}"')
        return found

    def _make_set(self, deployment: JsonObject, old: list[JsonObject], number: int) -> JsonObject:
        meta, spec = deployment["metadata"], deployment["spec"]
        template = editable(spec["template"])
        collisions = deployment["status"].get("collisionCount") or 0
        label = rollout.template_hash(template, collisions)
        while self._store.get(REPLICASETS, meta["namespace"], f"{meta['name']}-{label}"):
            collisions += 1
            label = rollout.template_hash(template, collisions)
        template.setdefault("metadata", {}).setdefault("labels", {})["pod-template-hash"] = label
        selector = editable(spec["selector"])
        selector.setdefault("matchLabels", {})["pod-template-hash"] = label
        one: JsonObject = {
            "metadata": {
                "name": f"{meta['name']}-{label}",
                "namespace": meta["namespace"],
                "labels": dict(template["metadata"]["labels"]),
                "ownerReferences": [
                    {
                        "apiVersion": "apps/v1",
                        "kind": "Deployment",
                        "name": meta["name"],
                        "uid": meta["uid"],
                        "controller": True,
                        "blockOwnerDeletion": True,
                    }
                ],
            },
            "spec": {"replicas": 0, "selector": selector, "template": template},
            "status": {"replicas": 0},
        }
        if spec.get("minReadySeconds"):
            one["spec"]["minReadySeconds"] = spec["minReadySeconds"]
        one["spec"]["replicas"] = rollout.size_for_new(deployment, [*old, one], 0)
        one["metadata"]["annotations"] = rollout.new_annotations(deployment, one, number) | rollout.size_annotations(
            deployment
        )
        made = self._store.create(REPLICASETS, one)
        self._progress(deployment, "NewReplicaSetCreated", f'Created new replica set "{made["metadata"]["name"]}"')
        if made["spec"]["replicas"]:
            self._say_scaled(deployment, made, "up", made["spec"]["replicas"])
        return made

    def _note_revision(self, deployment: JsonObject, number: int) -> None:
        meta = deployment["metadata"]

        def write(one: JsonObject) -> None:
            one["metadata"].setdefault("annotations", {})[rollout.REVISION] = str(number)

        self._store.edit(DEPLOYMENTS, meta["namespace"], meta["name"], write)

    def _resize(self, deployment: JsonObject, one: JsonObject, size: int) -> None:
        before = one["spec"]["replicas"]

        def write(current: JsonObject) -> None:
            current["metadata"].setdefault("annotations", {}).update(rollout.size_annotations(deployment))
            if current["spec"]["replicas"] != size:
                current["spec"]["replicas"] = size
                current["metadata"]["generation"] += 1

        self._store.edit(REPLICASETS, one["metadata"]["namespace"], one["metadata"]["name"], write)
        if before != size:
            self._say_scaled(deployment, one, "up" if size > before else "down", size)

    def _say_scaled(self, deployment: JsonObject, one: JsonObject, way: str, size: int) -> None:
        message = f"Scaled {way} replica set {one['metadata']['name']} to {size}"
        self._recorder.say(deployment, "Normal", "ScalingReplicaSet", message, "deployment-controller")

    def _clean_up(self, deployment: JsonObject, new: JsonObject | None) -> None:
        """Remove ReplicaSets beyond revisionHistoryLimit, oldest revision first, once the rollout is complete."""
        status = deployment["status"]
        limit = deployment["spec"].get("revisionHistoryLimit", 10)
        if not rollout.is_complete(deployment, status):
            return
        idle = [
            one
            for one in self._old_sets(deployment, new)
            if one["spec"]["replicas"] == 0 and not one["status"].get("replicas")
        ]
        idle.sort(key=rollout.revision)
        for one in idle[: max(len(idle) - limit, 0)]:
            self._store.remove(REPLICASETS, one["metadata"]["namespace"], one["metadata"]["name"])

    # ----------------------------------------------------------------- status
    def _progress(self, deployment: JsonObject, reason: str, message: str, value: str = "True") -> None:
        if not deployment["spec"].get("progressDeadlineSeconds"):
            return
        meta = deployment["metadata"]
        self._store.edit(
            DEPLOYMENTS,
            meta["namespace"],
            meta["name"],
            lambda one: rollout.set_condition(one["status"], "Progressing", value, reason, message, now()),
        )

    def _check_paused(self, deployment: JsonObject) -> JsonObject:
        meta = deployment["metadata"]
        current = rollout.condition(deployment["status"], "Progressing")
        paused = current is not None and current.get("reason") == "DeploymentPaused"
        if current and current.get("reason") == "ProgressDeadlineExceeded":
            return deployment  # checkPausedConditions leaves a deadline that has passed as it is.
        if deployment["spec"].get("paused") and not paused:
            self._progress(deployment, "DeploymentPaused", "Deployment is paused", "Unknown")
        elif paused and not deployment["spec"].get("paused"):
            self._progress(deployment, "DeploymentResumed", "Deployment is resumed", "Unknown")
        return self._store.must_get(DEPLOYMENTS, meta["namespace"], meta["name"])

    def _write_status(self, deployment: JsonObject) -> float | None:
        meta = deployment["metadata"]
        sets = self._store.owned(REPLICASETS, deployment)
        new = rollout.new_set_of(deployment, sets)
        before = editable(deployment["status"])
        status = rollout.counts(deployment, sets, new)
        status["conditions"] = editable(before.get("conditions") or [])
        if "collisionCount" in before:
            status["collisionCount"] = before["collisionCount"]
        self._judge_availability(deployment, status)
        if not deployment["spec"].get("paused"):
            self._judge_progress(deployment, status, before, new)
        failed = next(
            (
                c
                for one in [*([new] if new else []), *sets]
                for c in one["status"].get("conditions") or []
                if c["type"] == "ReplicaFailure"
            ),
            None,
        )
        if failed:
            rollout.set_condition(
                status, "ReplicaFailure", failed["status"], failed["reason"], failed["message"], now()
            )
        else:
            rollout.drop_condition(status, "ReplicaFailure")
        self._store.edit(DEPLOYMENTS, meta["namespace"], meta["name"], lambda one: one.update(status=status))
        return self._deadline(deployment, status)

    def _judge_availability(self, deployment: JsonObject, status: JsonObject) -> None:
        _, unavailable = rollout.limits(deployment)
        if (status.get("availableReplicas") or 0) >= deployment["spec"]["replicas"] - unavailable:
            rollout.set_condition(
                status, "Available", "True", "MinimumReplicasAvailable", "Deployment has minimum availability.", now()
            )
        else:
            rollout.set_condition(
                status,
                "Available",
                "False",
                "MinimumReplicasUnavailable",
                "Deployment does not have minimum availability.",
                now(),
            )

    def _judge_progress(
        self, deployment: JsonObject, status: JsonObject, before: JsonObject, new: JsonObject | None
    ) -> None:
        if not deployment["spec"].get("progressDeadlineSeconds"):
            rollout.drop_condition(status, "Progressing")
            return
        current = rollout.condition(status, "Progressing")
        settled = (
            status.get("replicas") == status.get("updatedReplicas")
            and current is not None
            and current.get("reason") == "NewReplicaSetAvailable"
        )
        if settled:
            return
        about = f'ReplicaSet "{new["metadata"]["name"]}"' if new else f'Deployment "{deployment["metadata"]["name"]}"'
        if rollout.is_complete(deployment, status):
            rollout.set_condition(
                status, "Progressing", "True", "NewReplicaSetAvailable", f"{about} has successfully progressed.", now()
            )
        elif rollout.has_progressed(before, status):
            since = current["lastTransitionTime"] if current and current["status"] == "True" else now()
            rollout.drop_condition(status, "Progressing")
            rollout.set_condition(status, "Progressing", "True", "ReplicaSetUpdated", f"{about} is progressing.", now())
            (rollout.condition(status, "Progressing") or {})["lastTransitionTime"] = since
        elif self._timed_out(deployment, current):
            rollout.set_condition(
                status, "Progressing", "False", "ProgressDeadlineExceeded", f"{about} has timed out progressing.", now()
            )

    def _timed_out(self, deployment: JsonObject, current: JsonObject | None) -> bool:
        if current is None or current.get("reason") in ("NewReplicaSetAvailable", "DeploymentPaused"):
            return False
        if current.get("reason") == "ProgressDeadlineExceeded":
            return True
        return age(current["lastUpdateTime"]) >= self._pace.real(deployment["spec"]["progressDeadlineSeconds"])

    def _deadline(self, deployment: JsonObject, status: JsonObject) -> float | None:
        current = rollout.condition(status, "Progressing")
        limit = deployment["spec"].get("progressDeadlineSeconds")
        if (
            not limit
            or current is None
            or rollout.is_complete(deployment, status)
            or current.get("reason") in ("ProgressDeadlineExceeded", "NewReplicaSetAvailable")
        ):
            return None
        return max(float(limit) - age(current["lastUpdateTime"]) * self._pace.speed, 0.2)
