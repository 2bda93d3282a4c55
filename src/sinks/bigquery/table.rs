//! The table: made where it is missing, checked where it is there.

use super::super::SinkError;
use super::rest::{Found, Rest};
use super::rows::{COLUMNS, Column};
use crate::config::BigQueryConfig;
use serde_json::{Value, json};

/// The columns that rows are clustered by.
const CLUSTERED_BY: [&str; 2] = ["content_type", "event_type"];
const PARTITIONED_BY: &str = "event_ts";

/// Where a table is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TableName {
    /// Its project.
    pub(super) project: String,
    /// Its dataset.
    pub(super) dataset: String,
    /// Its own name.
    pub(super) table: String,
}

impl TableName {
    /// The name as Storage Write has it, which is also how the names of its streams begin.
    pub(super) fn path(&self) -> String {
        let Self {
            project,
            dataset,
            table,
        } = self;
        format!("projects/{project}/datasets/{dataset}/tables/{table}")
    }

    /// The name in a query.
    pub(super) fn quoted(&self) -> String {
        let Self {
            project,
            dataset,
            table,
        } = self;
        format!("`{project}.{dataset}.{table}`")
    }
}

/// Sees to it that the table is there and takes our rows.
pub(super) async fn prepare(
    rest: &Rest,
    config: &BigQueryConfig,
    name: &TableName,
) -> Result<(), SinkError> {
    let TableName { dataset, table, .. } = name;
    if let Found::Missing = rest.get(&format!("datasets/{dataset}")).await? {
        create_or_tell(config, "dataset", dataset)?;
        rest.create("datasets", &new_dataset(config, name)).await?;
        tracing::info!(dataset, "created the dataset");
    }
    let path = format!("datasets/{dataset}/tables");
    let found = match rest.get(&format!("{path}/{table}")).await? {
        Found::There(found) => found,
        Found::Missing => {
            create_or_tell(config, "table", &format!("{dataset}.{table}"))?;
            rest.create(&path, &new_table(config, name)).await?;
            tracing::info!(dataset, table, "created the table");
            match rest.get(&format!("{path}/{table}")).await? {
                Found::There(found) => found,
                Found::Missing => {
                    let problem =
                        format!("the table {} was made and is not there yet", name.quoted());
                    return Err(SinkError::Unavailable(problem));
                }
            }
        }
    };
    let differs = differences(&found);
    if !differs.is_empty() {
        return Err(SinkError::Misconfigured(format!(
            "the table {} cannot take the events: {}; alter it, or name another by `sinks.bigquery.table`",
            name.quoted(),
            differs.join(", ")
        )));
    }
    if let Some(advice) = advice(&found) {
        tracing::warn!(dataset, table, "{advice}");
    }
    Ok(())
}

fn create_or_tell(config: &BigQueryConfig, what: &str, name: &str) -> Result<(), SinkError> {
    if config.create {
        return Ok(());
    }
    Err(SinkError::Misconfigured(format!(
        "the {what} `{name}` does not exist: create it, correct `sinks.bigquery.{what}`, or set `sinks.bigquery.create`"
    )))
}

fn new_dataset(config: &BigQueryConfig, name: &TableName) -> Value {
    let mut dataset =
        json!({"datasetReference": {"projectId": name.project, "datasetId": name.dataset}});
    if let (Some(location), Some(dataset)) = (&config.location, dataset.as_object_mut()) {
        dataset.insert("location".to_owned(), json!(location));
    }
    dataset
}

fn new_table(config: &BigQueryConfig, name: &TableName) -> Value {
    let column =
        |column: &Column| json!({"name": column.name, "type": column.kind, "mode": "NULLABLE"});
    let fields: Vec<Value> = COLUMNS.iter().map(column).collect();
    json!({
        "tableReference": {"projectId": name.project, "datasetId": name.dataset, "tableId": name.table},
        "description": "Enriched engagement events, each once",
        "schema": {"fields": fields},
        "timePartitioning": {"type": "DAY", "field": PARTITIONED_BY},
        "clustering": {"fields": CLUSTERED_BY},
        "requirePartitionFilter": config.require_partition_filter,
    })
}

/// All that keeps a table from taking our rows, a few words each.
fn differences(table: &Value) -> Vec<String> {
    let text = |field: &Value, key: &str| {
        field
            .get(key)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_ascii_uppercase()
    };
    let fields = table.pointer("/schema/fields").and_then(Value::as_array);
    let fields = fields.map(Vec::as_slice).unwrap_or_default();
    // BigQuery tells names in any case apart from none.
    let named = |field: &Value, name: &str| text(field, "name") == name.to_ascii_uppercase();
    let mut differs = Vec::new();
    for column in COLUMNS {
        let Some(field) = fields.iter().find(|field| named(field, column.name)) else {
            differs.push(format!(
                "column {} ({}) is missing",
                column.name, column.kind
            ));
            continue;
        };
        let (kind, mode) = (text(field, "type"), text(field, "mode"));
        if canonical(&kind) != column.kind {
            differs.push(format!(
                "column {} is {kind} but must be {}",
                column.name, column.kind
            ));
        }
        if mode == "REPEATED" || (mode == "REQUIRED" && !column.always) {
            differs.push(format!(
                "column {} is {mode} but must be NULLABLE",
                column.name
            ));
        }
    }
    for field in fields {
        let ours = COLUMNS.iter().any(|column| named(field, column.name));
        if !ours && text(field, "mode") == "REQUIRED" {
            let name = field
                .get("name")
                .and_then(Value::as_str)
                .unwrap_or_default();
            differs.push(format!("column {name} is REQUIRED and no event has it"));
        }
    }
    differs
}

/// What makes queries of a table dearer than they need be.
fn advice(table: &Value) -> Option<String> {
    let day = table
        .pointer("/timePartitioning/type")
        .and_then(Value::as_str)
        == Some("DAY");
    let field = table
        .pointer("/timePartitioning/field")
        .and_then(Value::as_str);
    let clustered = table.pointer("/clustering/fields");
    if day && field == Some(PARTITIONED_BY) && clustered == Some(&json!(CLUSTERED_BY)) {
        return None;
    }
    let by = CLUSTERED_BY.join(", ");
    Some(format!(
        "the table is not PARTITION BY DATE({PARTITIONED_BY}) CLUSTER BY {by}: queries read more than they need"
    ))
}

fn canonical(kind: &str) -> &str {
    match kind {
        "INT64" => "INTEGER",
        kind => kind,
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails"
)]
mod tests {
    use super::*;
    use crate::config::Layers;

    fn made() -> Value {
        let config = crate::config::SinksConfig::load(&Layers::default())
            .unwrap()
            .bigquery;
        let name = TableName {
            project: "p".into(),
            dataset: "d".into(),
            table: "t".into(),
        };
        new_table(&config, &name)
    }

    #[test]
    fn a_table_as_it_is_made_here_has_nothing_against_it() {
        assert_eq!(differences(&made()), Vec::<String>::new());
        assert_eq!(advice(&made()), None);
    }

    #[test]
    fn each_difference_is_told() {
        let mut table = made();
        let fields = table["schema"]["fields"].as_array_mut().unwrap();
        fields[0]["mode"] = json!("REQUIRED");
        fields[5] = json!({"name": "DURATION_MS", "type": "INT64"});
        fields[6]["type"] = json!("INTEGER");
        fields[7]["mode"] = json!("REQUIRED");
        fields[9]["type"] = json!("FLOAT64");
        fields.remove(1);
        fields.push(json!({"name": "extra", "type": "STRING", "mode": "REQUIRED"}));
        fields.push(json!({"name": "more", "type": "STRING", "mode": "NULLABLE"}));
        assert_eq!(
            differences(&table),
            [
                "column content_id (STRING) is missing",
                "column device is INTEGER but must be STRING",
                "column content_type is REQUIRED but must be NULLABLE",
                "column engagement_seconds is FLOAT64 but must be NUMERIC",
                "column extra is REQUIRED and no event has it",
            ]
        );
    }
}
