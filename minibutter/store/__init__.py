"""Results on the disk: two Parquet tables a sweep that agree after a kill at any instant.

`schema` names the columns, `shards` writes and reads single files, `checkpoints` keeps runs in
progress, `recovery` puts a directory in order after a kill, `manifest` says which sweep a directory
belongs to, `tables` reads the results back, `summary` condenses the repetitions, and `accounts`
says what became of the nodes' energy. No other room imports pyarrow.
"""

from minibutter.store.accounts import read_accounts, write_accounts
from minibutter.store.checkpoints import (
    Checkpoint,
    kept_epochs,
    read_checkpoint,
    write_checkpoint,
)
from minibutter.store.compaction import Compaction, compact, forget
from minibutter.store.comparison import Difference, difference
from minibutter.store.exporting import FORMATS, Export, export
from minibutter.store.files import StoreError, saying
from minibutter.store.manifest import open_directory, read_manifest, replace_file
from minibutter.store.measurements import (
    claim_study_folder,
    read_measurement,
    write_measurement,
    write_study_table,
)
from minibutter.store.merging import Conflict, Union, merge
from minibutter.store.recovery import recover
from minibutter.store.schema import (
    EPOCHS_SCHEMA,
    MEASURED_EPOCH_COLUMNS,
    METRICS,
    RUNS_SCHEMA,
    SCHEMA_VERSION,
)
from minibutter.store.shards import ShardWriter
from minibutter.store.summaries import write_summary
from minibutter.store.summary import summarize_epochs, summarize_experiments
from minibutter.store.tables import finished_runs, read_epochs, read_runs, require_results

__all__ = [
    "EPOCHS_SCHEMA",
    "FORMATS",
    "MEASURED_EPOCH_COLUMNS",
    "METRICS",
    "RUNS_SCHEMA",
    "SCHEMA_VERSION",
    "Checkpoint",
    "Compaction",
    "Conflict",
    "Difference",
    "Export",
    "ShardWriter",
    "StoreError",
    "Union",
    "claim_study_folder",
    "compact",
    "difference",
    "export",
    "finished_runs",
    "forget",
    "kept_epochs",
    "merge",
    "open_directory",
    "read_accounts",
    "read_checkpoint",
    "read_epochs",
    "read_manifest",
    "read_measurement",
    "read_runs",
    "recover",
    "replace_file",
    "require_results",
    "saying",
    "summarize_epochs",
    "summarize_experiments",
    "write_accounts",
    "write_checkpoint",
    "write_measurement",
    "write_study_table",
    "write_summary",
]
