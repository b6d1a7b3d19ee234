"""The command line of the services: argument parsing only.

Only the verbs that need the bridge import it, so `stop`, `status` and `remove` work even if it cannot be imported.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path, PureWindowsPath

from app.errors import ConfigError
from winsvc import control
from winsvc.arguments import add_log_options, add_patience_options, add_service_options, service_arguments
from winsvc.control import Refused
from winsvc.logs import Rotation
from winsvc.plan import BRIDGE, GRAFANA, Service, install_steps, update_steps
from winsvc.supervise import Patience

_ROOT = PureWindowsPath(Path(__file__).resolve().parents[1])
_DATA = PureWindowsPath(os.environ.get("PROGRAMDATA", r"C:\ProgramData")) / "TDS"
Run = Callable[[argparse.Namespace], None]


def parser() -> argparse.ArgumentParser:
    """The parser of every verb and option."""
    top = argparse.ArgumentParser(prog="python -m winsvc", description="The bridge, and Grafana beside it, as Windows services.")
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb, says, run in (
        ("install", "register a service with everything that belongs to it", _run_install),
        ("update", "bring a registered service to what it is to be (after an upgrade, or new ports)", _run_update),
    ):
        _add_kinds(verbs.add_parser(verb, help=says), run)
    _add_named_verb(verbs, "remove", "stop a service and take it away; its files stay", lambda args: control.remove(args.name))
    start = _add_named_verb(verbs, "start", "start a service and wait until it runs", _run_start)
    again = _add_named_verb(verbs, "restart", "stop, then start", _run_restart)
    for command in (start, again):
        ready = command.add_mutually_exclusive_group()
        ready.add_argument("--config", type=Path, help="wait until the bridge of this configuration is ready")
        ready.add_argument("--ready", metavar="URL", help="wait until this address answers")
    _add_named_verb(verbs, "stop", "stop a service and wait until it has drained", lambda args: control.stop(args.name))
    _add_named_verb(verbs, "status", "say whether a service runs, and if not why; 3 when it does not", None)
    _add_check_verb(verbs)
    for verb, supervises in (("run", False), ("supervise", True)):
        command = verbs.add_parser(verb, help="what the service control manager starts; `debug` is the same at a console")
        add_service_options(command, supervises)
    verbs.add_parser(
        "debug", help="debug run ... or debug supervise ...: at this console, until Ctrl-C, on any system", add_help=False
    )
    return top


def _add_named_verb(
    verbs: argparse._SubParsersAction[argparse.ArgumentParser], verb: str, says: str, run: Run | None
) -> argparse.ArgumentParser:
    command = verbs.add_parser(verb, help=says)
    command.add_argument("name", nargs="?", default=BRIDGE, help=f"the service (default {BRIDGE})")
    command.set_defaults(run=run or (lambda args: print(control.status(args.name))))
    return command


def _add_check_verb(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = verbs.add_parser("check", help="list everything that would keep the bridge's service from running")
    command.add_argument("--config", type=Path, default=Path(_DATA / "bridge" / "bridge.yaml"))
    command.add_argument("--running", action="store_true", help="the service runs and has the ports")
    command.set_defaults(run=_run_check)


def _add_kinds(command: argparse.ArgumentParser, run: Run) -> None:
    kinds = command.add_subparsers(dest="kind", required=True, metavar="KIND")
    bridge = kinds.add_parser("bridge", help="the bridge")
    bridge.add_argument(
        "--remote", default="LocalSubnet", help="who may connect when it listens beyond this machine (netsh's remoteip)"
    )
    add_log_options(bridge)
    grafana = kinds.add_parser("grafana", help="Grafana")
    grafana.add_argument("--home", type=PureWindowsPath, default=PureWindowsPath(r"C:\Program Files\GrafanaLabs\grafana"))
    program = kinds.add_parser("program", help="any program that keeps running at a console, for example Prometheus")
    add_patience_options(program)
    program.add_argument("program", nargs="+", help="its command line, after --")
    names = {"bridge": BRIDGE, "grafana": GRAFANA, "program": None}
    for kind in (bridge, grafana, program):
        name = names[kind.prog.rsplit(" ", 1)[-1]]
        kind.add_argument("--name", default=name, required=name is None, help="of the service")
        kind.add_argument(
            "--data", type=PureWindowsPath, default=_DATA, help=f"the folder of all services' data (default {_DATA})"
        )
        kind.add_argument("--print", action="store_true", help="only show the commands; on any system")
        kind.set_defaults(run=run)


def _described_service(args: argparse.Namespace) -> Service:
    from winsvc import services
    from winsvc.bridge import settings_of

    place = services.Place(_ROOT, PureWindowsPath(getattr(sys, "_base_executable", sys.executable)), args.data)
    if args.kind == "bridge":
        rotation = Rotation(args.log_bytes, args.log_files)
        settings = settings_of(Path(args.data / "bridge" / "bridge.yaml"))
        return services.bridge_service(place, args.name, settings, rotation, args.remote)
    if args.kind == "grafana":
        return services.grafana_service(place, args.name, args.home)
    folder = args.data / args.name.lower()
    patience = Patience(restart_s=args.restart, grace_s=args.grace)
    says = f"{args.program[0]}, kept running."
    return services.supervised_service(place, args.name, args.name, says, folder, args.program, patience)


def _run_install(args: argparse.Namespace) -> None:
    service = _described_service(args)
    if args.print:
        print(*install_steps(service, _ROOT, PureWindowsPath("servicemanager.pyd")), sep="\n")
        return
    control.require_windows()
    control.install(service, _ROOT)
    print(f"{service.name} is installed; start it with: python -m winsvc start {service.name}")


def _run_update(args: argparse.Namespace) -> None:
    service = _described_service(args)
    if args.print:
        print(*update_steps(service, _ROOT, PureWindowsPath("servicemanager.pyd")), sep="\n")
        return
    control.require_windows()
    control.update(service, _ROOT)


def _run_start(args: argparse.Namespace) -> None:
    control.start(args.name, _ready_url(args.config) if args.config else args.ready)


def _run_restart(args: argparse.Namespace) -> None:
    control.stop(args.name)
    _run_start(args)


def _ready_url(config: Path) -> str:
    from winsvc.bridge import settings_of

    http = settings_of(config).http
    reached = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(http.host, http.host)  # noqa: S104  compared, not bound
    return f"http://{reached}:{http.port}/readyz"


def _run_check(args: argparse.Namespace) -> None:
    from winsvc import check

    found = check.find_problems(args.config, args.running)
    if found:
        raise Refused("\n".join((f"{len(found)} problem{'s' if len(found) > 1 else ''}:", *found)))
    print("nothing is in the way")


def main(argv: Sequence[str]) -> int:
    """Run one verb. Returns 0 for success, 1 for a failure, 2 for a wrong command line or configuration."""
    if argv[:1] in (["run"], ["supervise"]):
        control.require_windows()
        from winsvc.service import main as serve  # Windows only

        serve(argv)
        return 0
    if argv[:1] == ["debug"]:
        from winsvc.work import debug

        return debug(service_arguments(argv[1:]))
    arguments = parser().parse_args(argv)
    if arguments.verb not in ("check", "install", "update"):
        control.require_windows()
    arguments.run(arguments)
    return 3 if arguments.verb == "status" and control.state_of(arguments.name) != "running" else 0


def run_verb(argv: Sequence[str]) -> int:
    """Run one verb and print its failure, if any. Returns the exit code."""
    try:
        return main(argv)
    except Refused as why:
        print(why, file=sys.stderr)
        return 1
    except ConfigError as wrong:
        print(wrong, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(run_verb(sys.argv[1:]))
