"""The audit as its settings have it: several places at once, and one way out at the end."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from auth.yamlnodes import YamlError
from gateway.audit.events import RESPONSE_COMPLETE
from gateway.audit.log import AuditLog
from gateway.audit.service import AuditService
from gateway.audit.settings import AuditSettings
from gateway.audit.sinks import FileSink
from gateway.audit.webhook import Webhook
from tunnel.requestinfo import request_info

POLICY = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: %s}]\n"


def ids(path: Path) -> list[str]:
    return [json.loads(line)["auditID"] for line in path.read_bytes().splitlines()]


def line(audit_id: str) -> bytes:
    return json.dumps({"auditID": audit_id}).encode() + b"\n"


def metrics(service: AuditService) -> str:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(service.collector())
    return generate_latest(registry).decode()


async def test_without_settings_there_is_one_file_in_the_state_directory(tmp_path: Path) -> None:
    async with AuditService(AuditSettings(), tmp_path) as service:
        service.log.record(line("1"))
        assert service.log.ready()
        await asyncio.sleep(0)
        assert ids(tmp_path / "audit.log") == ["1"]
        service.log.record(line("2"))
    assert ids(tmp_path / "audit.log") == ["1", "2"]


async def test_several_files_have_the_same_lines(tmp_path: Path) -> None:
    paths = (str(tmp_path / "a.log"), str(tmp_path / "b.log"))
    async with AuditService(AuditSettings(log_path=paths), tmp_path) as service:
        service.log.record(line("1"))
    assert [ids(Path(path)) for path in paths] == [["1"], ["1"]]
    assert not (tmp_path / "audit.log").exists()


async def test_none_records_nothing(tmp_path: Path) -> None:
    async with AuditService(AuditSettings(log_path=("none",)), tmp_path) as service:
        service.log.record(line("1"))
        assert service.log.ready()
        policy = service.trail(asyncio.get_running_loop().time).policy
        assert policy is not None
        assert not policy.wants(RESPONSE_COMPLETE, None, request_info("GET", b"/version"))
    assert list(tmp_path.iterdir()) == []


async def test_what_was_lost_and_what_waits_is_in_the_metrics(tmp_path: Path) -> None:
    settings = AuditSettings(log_path=("/dev/full",), log_mode="drop", buffer_size=2)
    async with AuditService(settings, tmp_path) as service:
        for _ in range(6):  # one is being written, two may wait
            service.log.record(line("1"))
            await asyncio.sleep(0)
        told = metrics(service)
        assert 'kulvert_audit_events_lost_total{sink="full"} 3.0' in told
        assert 'kulvert_audit_events_waiting{sink="full"} 3.0' in told
        assert 'kulvert_audit_sink_up{sink="full"} 0.0' in told
        assert service.log.ready()
        assert service.problem() is None


async def test_a_full_disk_stands_against_new_requests_by_default(tmp_path: Path) -> None:
    async with AuditService(AuditSettings(log_path=("/dev/full",)), tmp_path) as service:
        service.log.record(line("1"))
        await asyncio.sleep(0)
        assert not service.log.ready()
        assert service.problem() == "the audit log cannot be written: No space left on device"


async def test_a_policy_is_read_at_the_start_and_anew_when_told_to(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "policy.yaml"
    settings = AuditSettings(policy_file=path)
    with pytest.raises(YamlError, match="cannot be read"):
        AuditService(settings, tmp_path)
    path.write_text(POLICY % "None")
    async with AuditService(settings, tmp_path) as service:
        trail = service.trail(asyncio.get_running_loop().time)
        first = trail.policy
        path.write_text(POLICY % "Request")
        service.reopen()
        assert trail.policy is first
        assert "would record bodies" in str(caplog.records[-1].__dict__["error"])
        path.write_text(POLICY % "Metadata")
        service.reopen()
        assert trail.policy is not first


async def test_settings_reach_the_parts(tmp_path: Path) -> None:
    config = tmp_path / "webhook.yaml"
    config.write_text(
        "clusters: [{name: c, cluster: {server: 'https://127.0.0.1:1/'}}]\nusers: []\n"
        "contexts: [{name: x, context: {cluster: c}}]\ncurrent-context: x\n"
    )
    settings = AuditSettings(
        log_maxsize=5, log_maxbackup=3, log_maxage=7, log_compress=True, log_mode="drop",
        webhook_config_file=config, webhook_batch_max_size=9,
    )  # fmt: skip
    async with AuditService(settings, tmp_path) as service:
        file, hook = service.log.queues
        assert isinstance(file, AuditLog)
        assert isinstance(file._sink, FileSink)
        assert file._sink._rotation is not None
        rules = file._sink._rotation.rules
        assert (rules.max_bytes, rules.backups, rules.days, rules.compress) == (5 << 20, 3, 7, True)
        assert isinstance(hook, Webhook)
        assert (file.refuse, hook.refuse, hook._batching.size) == (False, True, 9)


async def test_a_start_that_fails_leaves_nothing_open(tmp_path: Path) -> None:
    service = AuditService(AuditSettings(log_path=(str(tmp_path / "a"), str(tmp_path / "no" / "b"))), tmp_path)
    with pytest.raises(FileNotFoundError):
        async with service:
            raise AssertionError("it began")
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "audit webhook"]


def test_settings_that_contradict_each_other_are_named() -> None:
    right = AuditSettings()
    assert list(right.problems()) == []
    assert list(replace(right, log_mode="stop").problems()) == ["audit.logMode must be block or drop, not 'stop'"]
    assert len(list(replace(right, webhook_mode="", log_path=("none", "-", "-")).problems())) == 3
