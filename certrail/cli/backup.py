"""``certrail backup`` and ``certrail restore``: everything at one moment, and back."""

from __future__ import annotations

import os
import shutil
from contextlib import ExitStack
from pathlib import Path

import click

from certrail import settings
from certrail.cli import _archive
from certrail.cli._database import prefect_url_of, prepare_external
from certrail.cli._output import echo_json, examples, local
from certrail.errors import InvalidRequest, KeyUnavailable
from certrail.keys.seal import Keyring, keyring, stored_keys
from certrail.log import plain
from certrail.postgres import INVENTORY_DATABASE, PREFECT_DATABASE, EmbeddedPostgres
from certrail.settings import write_private
from certrail.store import audit, restores
from certrail.words import counted


@click.command(
    epilog=examples(
        "certrail backup -o /srv/backup/certrail.tar",
        "certrail backup -o certrail.tar --keys /media/safe/certrail.keys",
    )
)
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file; one that is there is replaced.",
)
@click.option(
    "--keys",
    "keys_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write the keys to a file of their own. Without them a backup is worthless, "
    "beside it they open it: keep both apart.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def backup(output: Path, keys_path: Path | None, as_json: bool) -> None:
    """Back up both databases while everything runs. No key is in the file."""
    found = settings.adopt()
    data_dir = Path(found.data_dir)
    audit.note_now(audit.local_actor(), "backup.make", str(output.absolute()))
    manifest = _archive.write(
        output,
        inventory_url=found.database_url,
        prefect_url=prefect_url_of(found.database_url),
        keys=keyring(),
        folder=output.absolute().parent,
    )
    if keys_path is not None:
        _archive.write_keys(keys_path, stored_keys(found.key_file), _prefect_key(data_dir))
    size = output.stat().st_size
    if as_json:
        echo_json({"file": str(output), "size": size, **manifest.to_json()})
        return
    click.echo(
        f"{output}: {counted(size, 'byte')}, {counted(manifest.counts['requests'], 'request')}, "
        f"{manifest.counts['under_way']} of them under way, as of {local(manifest.made_at)}"
    )
    click.echo(
        f"its keys are in {keys_path}: keep them apart"
        if keys_path
        else f"it needs the key {manifest.key_id} and prefect.key; `--keys FILE` saves both"
    )


@click.command(
    epilog=examples(
        "certrail restore certrail.tar --keys certrail.keys --data-dir /srv/certrail",
    )
)
@click.argument("archive", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--keys",
    "keys_path",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file that `certrail backup --keys` wrote.",
)
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="A data directory that does not exist or is empty.  [default: ~/.local/share/certrail]",
)
@click.option(
    "--database-url",
    help="Restore into this PostgreSQL instead of an embedded one. Better put it into "
    "CERTRAIL_DATABASE_URL: other accounts can read a command line.",
)
def restore(
    archive: Path, keys_path: Path, data_dir: Path | None, database_url: str | None
) -> None:
    """Put a backup into a new data directory, on this machine or another.

    The installation it was made of must not run any more: two that go on with
    the same requests would order twice. What was under way goes on where the
    backup has it; orders that were made are asked for again, not made again,
    and a certificate that was issued after the backup and is served is kept.
    """
    chosen = settings.settings()
    folder = (data_dir or chosen.data_dir).expanduser().resolve()
    if folder.exists() and any(folder.iterdir()):
        raise InvalidRequest(
            f"{folder} is not empty", remedy="Give another --data-dir, or move that one away."
        )
    sealing, prefect = _archive.read_keys(keys_path)
    url = database_url or (chosen.database_url.get_secret_value() if chosen.database_url else "")
    existed = folder.exists()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    done = False
    try:
        with _archive.opened(archive, folder) as (manifest, parts), ExitStack() as stack:
            manifest.must_open(Keyring.from_text(sealing))
            if url:
                inventory_url, prefect_url = prepare_external(url)
            else:
                server = EmbeddedPostgres(folder / "postgres")
                stack.callback(server.stop)
                server.start()
                inventory_url = server.url(INVENTORY_DATABASE)
                prefect_url = server.url(PREFECT_DATABASE)
            _archive.load(parts["prefect.dump"], prefect_url)
            _archive.load(parts["inventory.dump"], inventory_url)
            write_private(folder / "certrail.key", sealing)
            write_private(folder / "prefect.key", prefect)
            _note(inventory_url, archive, manifest)
        done = True
    finally:
        if not done:
            _clear(folder, keep=existed)
    click.echo(
        f"{folder} holds the backup of {local(manifest.made_at)}: "
        f"{counted(manifest.counts['requests'], 'request')}, "
        f"{manifest.counts['under_way']} under way"
    )
    click.echo("make sure that the old installation does not run, then: certrail up --data-dir …")


def _note(url: str, archive: Path, manifest: _archive.Manifest) -> None:
    os.environ["CERTRAIL_DATABASE_URL"] = url
    restores.note(str(archive.absolute()), manifest.made_at, manifest.version)


def _clear(folder: Path, *, keep: bool) -> None:
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    if not keep:
        folder.rmdir()


def _prefect_key(data_dir: Path) -> str:
    path = data_dir / "prefect.key"
    try:
        return path.read_text()
    except OSError as exc:
        raise KeyUnavailable(
            f"cannot read {plain(path)}: {exc.strerror}",
            remedy="Run it on the machine of `certrail up`, as its account.",
        ) from exc
