//! Models as JSON.

use std::time::UNIX_EPOCH;

use serde_json::{Value, json};

use crate::keep_alive::KeepAlive;
use crate::model::KvType;
use crate::pool::{
    Bytes, Description, FileDescription, LoadStage, ModelEntry, ModelFile, ModelState, ModelStatus,
    Needs, ReadyStatus, Requirement, Shape,
};

/// A model of the list. Of one nobody asked for yet there is no status.
pub(super) fn entry(entry: &ModelEntry, status: Option<&ModelStatus>) -> Value {
    let ModelEntry {
        id,
        aliases,
        source,
        file,
    } = entry;
    let mut value = json!({
        "id": id.as_str(),
        "aliases": aliases,
        "source": source,
        "file": file.as_ref().map(model_file),
        "state": "absent",
    });
    if let Some(status) = status {
        extend(&mut value, self::status(status));
    }
    value
}

fn model_file(file: &ModelFile) -> Value {
    let modified = file.modified.duration_since(UNIX_EPOCH);
    json!({
        "path": file.path.to_string_lossy(),
        "size_bytes": file.size_bytes,
        "modified": modified.map_or(0, |since| since.as_secs()),
    })
}

/// Where a model stands.
pub(super) fn status(status: &ModelStatus) -> Value {
    let ModelStatus {
        id: _,
        state,
        load,
        memory,
        idle,
        keep_alive,
        expires_in,
        n_waiting,
        ready,
    } = status;
    let mut value = self::state(state);
    extend(
        &mut value,
        json!({
            "memory": bytes(*memory),
            "idle_seconds": idle.as_secs_f64(),
            "keep_alive": self::keep_alive(*keep_alive),
            "expires_in_seconds": expires_in.map(|time| time.as_secs_f64()),
            "requests_waiting": n_waiting,
        }),
    );
    // Of a model that is loaded the load is no news any more.
    let is_over = matches!(load, Some(LoadStage::Ready) | None);
    if let (Some(load), false) = (load, is_over) {
        value["load"] = stage(load);
    }
    if let Some(ready) = ready {
        extend(&mut value, self::ready(ready));
    }
    value
}

fn state(state: &ModelState) -> Value {
    match state {
        ModelState::Fetching => json!({"state": "fetching"}),
        ModelState::Queued => json!({"state": "queued"}),
        ModelState::Loading => json!({"state": "loading"}),
        ModelState::Ready { n_leases } => json!({"state": "ready", "requests": n_leases}),
        ModelState::Draining { n_leases } => json!({"state": "draining", "requests": n_leases}),
        ModelState::Failed { reason, retry_in } => json!({
            "state": "failed",
            "reason": reason,
            "retry_in_seconds": retry_in.as_secs_f64(),
        }),
    }
}

fn ready(ready: &ReadyStatus) -> Value {
    let ReadyStatus {
        n_ctx,
        needs,
        load_time,
        engine,
    } = ready;
    json!({
        "context": n_ctx,
        "memory_use": self::needs(*needs),
        "load_seconds": load_time.as_secs_f64(),
        "prompt_tokens_per_second": engine.prefill_tokens_per_second,
        "tokens_per_second": engine.decode_tokens_per_second,
        "sequences_running": engine.n_running,
        "sequences_waiting": engine.n_waiting,
        "requests_finished": engine.n_finished_total,
    })
}

/// A step of a load.
pub(super) fn stage(stage: &LoadStage) -> Value {
    let fraction = stage.fraction();
    let mut value = match stage {
        LoadStage::Fetching {
            source,
            done_bytes,
            total_bytes,
        } => json!({
            "stage": "fetching",
            "source": source,
            "done_bytes": done_bytes,
            "total_bytes": total_bytes,
        }),
        LoadStage::SourceFailed {
            source,
            reason,
            next,
        } => json!({"stage": "source_failed", "source": source, "reason": reason, "next": next}),
        LoadStage::Verifying => json!({"stage": "verifying"}),
        LoadStage::Opening => json!({"stage": "opening"}),
        LoadStage::WaitingForMemory => json!({"stage": "waiting_for_memory"}),
        LoadStage::Weights {
            done_bytes,
            total_bytes,
        } => json!({
            "stage": "weights",
            "done_bytes": done_bytes,
            "total_bytes": total_bytes,
        }),
        LoadStage::WarmingUp => json!({"stage": "warming_up"}),
        LoadStage::Ready => json!({"stage": "ready"}),
        LoadStage::Failed { reason } => json!({"stage": "failed", "reason": reason}),
    };
    if let Some(fraction) = fraction {
        value["fraction"] = json!(fraction);
    }
    value
}

/// What is known of a model; `budget` says what of it fits here.
pub fn description(description: &Description, budget: Bytes) -> Value {
    let requirement = |one: &Requirement| {
        let mut value = json!({
            "context": one.n_ctx,
            "kv_type": kv_type(one.kv_type),
            "memory": bytes(one.total()),
            "fits": one.total().fits(budget),
        });
        extend(&mut value, needs(one.needs));
        value
    };
    let Description {
        id,
        aliases,
        sources,
        license,
        file,
        requirements,
    } = description;
    json!({
        "id": id.as_str(),
        "aliases": aliases,
        "sources": sources,
        "license": license,
        "file": file.as_ref().map(self::file),
        "requirements": requirements.iter().map(requirement).collect::<Vec<_>>(),
    })
}

fn file(file: &FileDescription) -> Value {
    let FileDescription {
        path,
        size_bytes,
        architecture,
        name,
        n_parameters,
        weight_type,
        shape,
        n_ctx,
    } = file;
    json!({
        "path": path.to_string_lossy(),
        "size_bytes": size_bytes,
        "architecture": architecture,
        "name": name,
        "parameters": n_parameters,
        "weight_type": weight_type,
        "context": n_ctx,
        "shape": self::shape(shape),
    })
}

fn shape(shape: &Shape) -> Value {
    json!({
        "trained_context": shape.context_length,
        "layers": shape.n_layers,
        "embedding_length": shape.n_embd,
        "feed_forward_length": shape.n_ff,
        "heads": shape.n_heads,
        "kv_heads": shape.n_kv_heads,
        "head_dim": shape.head_dim,
        "vocabulary": shape.n_vocab,
    })
}

fn kv_type(kv_type: KvType) -> &'static str {
    match kv_type {
        KvType::F16 => "f16",
        KvType::Int8 => "int8",
    }
}

fn needs(needs: Needs) -> Value {
    json!({
        "weights": bytes(needs.weights),
        "kv_cache": bytes(needs.kv),
        "workspace": bytes(needs.workspace),
    })
}

/// Bytes of the host, and of the GPU where there is one.
pub(super) fn bytes(bytes: Bytes) -> Value {
    json!({"host_bytes": bytes.host, "device_bytes": bytes.device})
}

fn keep_alive(keep_alive: KeepAlive) -> Value {
    match keep_alive {
        KeepAlive::UntilNeeded => Value::Null,
        KeepAlive::For(time) => json!(time.as_secs_f64()),
        KeepAlive::Pinned => json!(-1),
    }
}

/// Adds the fields of an object to those of another.
pub(super) fn extend(value: &mut Value, more: Value) {
    if let (Value::Object(value), Value::Object(more)) = (value, more) {
        value.extend(more);
    }
}
