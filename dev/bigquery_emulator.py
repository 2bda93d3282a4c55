"""Starts bqemulator 1.4.0, repaired where a writer cannot be tested against it. Its installed files stay as they are.

Left as it is: a stream counts rows before they are inserted, so that a count may be seen before its rows are.
"""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import grpc
import grpc.aio

# Each open append holds one thread, and one that a killed client left behind holds it for ever.
APPENDS = 256
# Rows told of in one answer, as in BigQuery.
ROW_ERRORS = 50


def give_appends_threads():
    """By default there are as many threads as cores and four more."""
    server = grpc.aio.server

    def with_threads(*args, **kwargs):
        kwargs.setdefault("migration_thread_pool", ThreadPoolExecutor(APPENDS))
        return server(*args, **kwargs)

    grpc.aio.server = with_threads


def keep_no_snapshots():
    """Each append copied the whole table, for time travel."""
    from bqemulator.versioning.snapshots import SnapshotManager

    SnapshotManager.capture = lambda *_, **__: None


def insert_beside_queries():
    """Appends shared one connection with the event loop of the queries: both waited for each other for ever, or a query was given
    the result of an append. So the catalogue is not told how many rows there are, either: that too goes through the shared one."""
    from bqemulator.grpc_api import write_servicer

    local = threading.local()

    def cursor_of(engine):
        if getattr(local, "engine", None) is not engine:
            local.engine = engine
            local.cursor = engine.connection.cursor()
            local.cursor.execute("SET TimeZone = 'UTC'")
        return local.cursor

    def flush_to_target(self, stream, rows):
        place = (stream.project_id, stream.dataset_id, stream.table_id)
        cursor = cursor_of(self._ctx.engine)
        table = write_servicer.quoted_table_ref(*place)
        name = write_servicer.register_name(f"__bqemu_write_{uuid4().hex[:12]}")
        with self._write_lock:
            cursor.register(name, rows)
            try:
                cursor.execute(f"INSERT INTO {table} SELECT * FROM {name}")
            finally:
                cursor.unregister(name)
            self._ctx.snapshots.record_change(*place)

    write_servicer.BigQueryWriteHandler._flush_to_target = flush_to_target


def take_requests_without_a_stream():
    """Only the first request of a connection must name the stream."""
    from bqemulator.grpc_api import write_servicer

    handler = write_servicer.BigQueryWriteHandler
    ensure = handler._ensure_stream_bound

    def ensure_stream_bound(self, name, bound, context):
        return bound if bound is not None and not name else ensure(self, name, bound, context)

    handler._ensure_stream_bound = ensure_stream_bound


def refuse_rows_as_bigquery_does():
    """A row that does not fit ended the connection; BigQuery names it, and appends none of its request."""
    from bqemulator.api.routes import tables
    from bqemulator.grpc_api import write_servicer
    from google.cloud.bigquery_storage_v1 import types

    parse_fields = tables._parse_schema_fields
    arrow_schema = write_servicer._table_arrow_schema
    rows_for_request = write_servicer._rows_for_request
    error_response = write_servicer._error_response

    class Refused(str):
        """The text of an error, with the rows it is about."""

        rows = ()

    class RefusedRows(ValueError):
        """Some rows of a request do not fit."""

        def __init__(self, rows):
            self.rows = rows

        def __str__(self):
            text = Refused("Errors found while processing rows")
            text.rows = self.rows
            return text

    def parse_with_lengths(raw_fields):
        fields = zip(parse_fields(raw_fields), raw_fields)
        return tuple(
            field.model_copy(update={"max_length": int(raw["maxLength"])}) if "maxLength" in raw else field
            for field, raw in fields
        )

    def schema_with_lengths(table):
        lengths = {f.name: str(f.max_length) for f in table.schema_.fields if f.max_length}
        return arrow_schema(table).with_metadata(lengths)

    def problem_of(decoder, row, lengths):
        try:
            values = decoder.decode(row)
        except Exception as error:
            return f"the row cannot be read: {error}"
        for name, length in lengths.items():
            if len(values.get(name) or "") > length:
                return f"Field {name}: value is longer than {length}"
        return None

    def checked_rows(request, decoder, arrow_schema_bytes, schema):
        if write_servicer._has_field(request, "proto_rows"):
            data = request.proto_rows
            if write_servicer._has_field(data, "writer_schema"):
                decoder = write_servicer.ProtoRowDecoder(data.writer_schema.proto_descriptor)
            lengths = {name.decode(): int(length) for name, length in (schema.metadata or {}).items()}
            if decoder is not None:
                problems = (problem_of(decoder, row, lengths) for row in data.rows.serialized_rows)
                refused = [(index, problem) for index, problem in enumerate(problems) if problem]
                if refused:
                    raise RefusedRows(refused)
        return rows_for_request(request, decoder, arrow_schema_bytes, schema)

    def response_with_rows(stream, detail, *args, **kwargs):
        response = error_response(stream, detail, *args, **kwargs)
        if not isinstance(detail, Refused):
            return response
        answer = types.AppendRowsResponse.deserialize(response)
        answer.row_errors = [
            types.RowError(index=index, code=types.RowError.RowErrorCode.FIELDS_ERROR, message=message)
            for index, message in detail.rows[:ROW_ERRORS]
        ]
        return types.AppendRowsResponse.serialize(answer)

    tables._parse_schema_fields = parse_with_lengths
    write_servicer._table_arrow_schema = schema_with_lengths
    write_servicer._rows_for_request = checked_rows
    write_servicer._error_response = response_with_rows


if __name__ == "__main__":
    give_appends_threads()
    keep_no_snapshots()
    insert_beside_queries()
    take_requests_without_a_stream()
    refuse_rows_as_bigquery_does()
    from bqemulator.cli import main

    sys.exit(main())
