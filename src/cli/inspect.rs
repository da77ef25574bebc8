//! `ingle inspect`: what is in a model file.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use serde_json::json;

use crate::gguf::{Array, Gguf, TensorInfo, TensorType, Value, is_control, printable};

/// So many elements of a list are shown.
const MAX_SHOWN: usize = 4;

/// Lists metadata, tensors and totals for a person to read.
///
/// Errors: the file is no good GGUF; `out` does not take more.
pub(crate) fn run(path: &Path, out: &mut dyn Write) -> anyhow::Result<()> {
    let gguf = Gguf::open(path)?;
    write_files(&gguf, out)?;
    write_metadata(&gguf, out)?;
    write_tensors(&gguf, out)?;
    write_totals(&gguf, out)
}

/// The same as one JSON object. Long texts and lists are shortened here too.
///
/// Errors: as for [`run`].
pub(crate) fn run_json(path: &Path, out: &mut dyn Write) -> anyhow::Result<()> {
    let gguf = Gguf::open(path)?;
    let keys = gguf.metadata();
    let mut metadata = serde_json::Map::new();
    for key in keys.keys() {
        if let Some(value) = keys.value(key)? {
            let ty = value.value_type().name();
            metadata.insert(
                key.into(),
                json!({ "type": ty, "value": value_json(value) }),
            );
        }
    }
    let tensors: Vec<_> = gguf.tensors().iter().map(tensor_json).collect();
    let types: serde_json::Map<_, _> = totals(&gguf)
        .into_values()
        .map(|total| (total.ty.name().to_owned(), total_json(&total)))
        .collect();
    let files: Vec<_> = gguf
        .shards()
        .iter()
        .map(|shard| json!({ "path": shard.path().to_string_lossy(), "bytes": shard.n_bytes() }))
        .collect();
    let all = json!({
        "files": files,
        "version": gguf.version(),
        "alignment": gguf.alignment(),
        "metadata": metadata,
        "tensors": tensors,
        "types": types,
        "parameters": n_parameters(&gguf),
        "bytes": gguf.file_bytes(),
    });
    writeln!(out, "{}", plain(&serde_json::to_string_pretty(&all)?))?;
    Ok(())
}

/// JSON with the characters escaped that JSON may leave alone and a terminal would obey. Outside of
/// strings JSON has none of them.
fn plain(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        if c != '\n' && is_control(c) {
            // All of them fit in four digits.
            text.extend(format!("\\u{:04x}", u32::from(c)).chars());
        } else {
            text.push(c);
        }
    }
    text
}

fn write_files(gguf: &Gguf, out: &mut dyn Write) -> anyhow::Result<()> {
    for shard in gguf.shards() {
        let name = printable(&shard.path().to_string_lossy());
        writeln!(out, "{name}: {} bytes", grouped(shard.n_bytes()))?;
    }
    writeln!(
        out,
        "GGUF version {}, tensors aligned to {}",
        gguf.version(),
        gguf.alignment()
    )?;
    Ok(())
}

fn write_metadata(gguf: &Gguf, out: &mut dyn Write) -> anyhow::Result<()> {
    let keys = gguf.metadata();
    writeln!(out, "\nmetadata: {} keys", keys.keys().len())?;
    let width = keys
        .keys()
        .map(|key| printable(key).chars().count())
        .max()
        .unwrap_or_default();
    for key in keys.keys() {
        if let Some(value) = keys.value(key)? {
            writeln!(out, "  {:width$}  {}", printable(key), value_text(value))?;
        }
    }
    Ok(())
}

fn write_tensors(gguf: &Gguf, out: &mut dyn Write) -> anyhow::Result<()> {
    let tensors = gguf.tensors();
    writeln!(
        out,
        "\ntensors: {} (shape is innermost first)",
        tensors.len()
    )?;
    let width = |text: &dyn Fn(&TensorInfo) -> String| {
        tensors
            .iter()
            .map(|tensor| text(tensor).chars().count())
            .max()
            .unwrap_or_default()
    };
    let name = |tensor: &TensorInfo| printable(&tensor.name);
    let shape = |tensor: &TensorInfo| format!("{:?}", tensor.dims);
    let bytes = |tensor: &TensorInfo| grouped(tensor.n_bytes());
    let (names, shapes, sizes) = (width(&name), width(&shape), width(&bytes));
    for tensor in tensors {
        let (name, shape, bytes) = (name(tensor), shape(tensor), bytes(tensor));
        let offset = grouped(tensor.offset());
        let ty = tensor.ty.name();
        write!(
            out,
            "  {name:names$}  {ty:8}  {shape:shapes$}  {bytes:>sizes$} bytes at {offset}"
        )?;
        if gguf.shards().len() > 1 {
            write!(out, " of file {}", tensor.shard() + 1)?;
        }
        writeln!(out)?;
    }
    Ok(())
}

fn write_totals(gguf: &Gguf, out: &mut dyn Write) -> anyhow::Result<()> {
    writeln!(out, "\ntypes")?;
    for total in totals(gguf).values() {
        let note = if total.ty.weight_type().is_some() {
            ""
        } else {
            "  (Ingle cannot run it)"
        };
        writeln!(
            out,
            "  {:8}  {:>6} tensors  {:>16} parameters  {:>16} bytes{note}",
            total.ty.name(),
            total.n_tensors,
            grouped(total.n_parameters),
            grouped(total.n_bytes),
        )?;
    }
    writeln!(out, "parameters: {}", grouped(n_parameters(gguf)))?;
    Ok(())
}

/// What the tensors of a type are together.
struct Total {
    ty: TensorType,
    n_tensors: u64,
    n_parameters: u64,
    n_bytes: u64,
}

/// By the type's id.
fn totals(gguf: &Gguf) -> BTreeMap<u32, Total> {
    let mut totals = BTreeMap::new();
    for tensor in gguf.tensors() {
        let ty = tensor.ty;
        let none = Total {
            ty,
            n_tensors: 0,
            n_parameters: 0,
            n_bytes: 0,
        };
        let total = totals.entry(ty.id()).or_insert(none);
        total.n_tensors += 1;
        total.n_parameters += tensor.n_elements();
        total.n_bytes += tensor.n_bytes();
    }
    totals
}

fn n_parameters(gguf: &Gguf) -> u64 {
    gguf.tensors().iter().map(TensorInfo::n_elements).sum()
}

fn value_text(value: Value<'_>) -> String {
    match value {
        Value::U8(v) => v.to_string(),
        Value::I8(v) => v.to_string(),
        Value::U16(v) => v.to_string(),
        Value::I16(v) => v.to_string(),
        Value::U32(v) => v.to_string(),
        Value::I32(v) => v.to_string(),
        Value::U64(v) => v.to_string(),
        Value::I64(v) => v.to_string(),
        Value::F32(v) => v.to_string(),
        Value::F64(v) => v.to_string(),
        Value::Bool(v) => v.to_string(),
        Value::Str(bytes) => string_text(bytes),
        Value::Array(array) => array_text(array),
    }
}

/// A text in quotes; with its length where it is cut.
fn string_text(bytes: &[u8]) -> String {
    let text = shown(bytes);
    if text.ends_with('…') {
        return format!("\"{text}\" ({} bytes)", grouped(bytes.len() as u64));
    }
    format!("\"{text}\"")
}

fn array_text(array: Array<'_>) -> String {
    let mut first: Vec<String> = array.iter().take(MAX_SHOWN).map(value_text).collect();
    if array.len() > MAX_SHOWN {
        first.push("…".into());
    }
    let (len, element) = (grouped(array.len() as u64), array.element_type().name());
    format!("[{}] ({len} {element})", first.join(", "))
}

/// A text that need not be UTF-8, fit for a terminal. Only its start is looked at.
fn shown(bytes: &[u8]) -> String {
    const ENOUGH_BYTES: usize = 1024;
    let start = bytes.get(..ENOUGH_BYTES).unwrap_or(bytes);
    match std::str::from_utf8(start) {
        Ok(text) => printable(text),
        // The cut may have gone through a character.
        Err(error) if error.error_len().is_none() && start.len() < bytes.len() => {
            printable(&String::from_utf8_lossy(start))
        }
        Err(_) => printable(&start.escape_ascii().to_string()),
    }
}

fn value_json(value: Value<'_>) -> serde_json::Value {
    match value {
        Value::U8(v) => json!(v),
        Value::I8(v) => json!(v),
        Value::U16(v) => json!(v),
        Value::I16(v) => json!(v),
        Value::U32(v) => json!(v),
        Value::I32(v) => json!(v),
        Value::U64(v) => json!(v),
        Value::I64(v) => json!(v),
        // By way of its shortest spelling: 1e-5 and not 9.999999747378752e-6.
        Value::F32(v) => json!(v.to_string().parse::<f64>().ok()),
        Value::F64(v) => json!(v),
        Value::Bool(v) => json!(v),
        Value::Str(bytes) => json!(shown(bytes)),
        Value::Array(array) => json!({
            "element": array.element_type().name(),
            "len": array.len(),
            "first": array.iter().take(MAX_SHOWN).map(value_json).collect::<Vec<_>>(),
        }),
    }
}

fn tensor_json(tensor: &TensorInfo) -> serde_json::Value {
    json!({
        "name": tensor.name,
        "type": tensor.ty.name(),
        "shape": tensor.dims,
        "bytes": tensor.n_bytes(),
        "offset": tensor.offset(),
        "file": tensor.shard(),
    })
}

fn total_json(total: &Total) -> serde_json::Value {
    json!({
        "tensors": total.n_tensors,
        "parameters": total.n_parameters,
        "bytes": total.n_bytes,
        "runs": total.ty.weight_type().is_some(),
    })
}

/// A number with a comma between thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (idx, digit) in digits.chars().enumerate() {
        if idx > 0 && (digits.len() - idx).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of version 3 with three keys and a tensor of four I8, its name meant to clear the
    /// terminal.
    fn file() -> Vec<u8> {
        let text = |text: &str| [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat();
        let mut file = b"GGUF\x03\0\0\0".to_vec();
        file.extend([1_u64.to_le_bytes(), 3_u64.to_le_bytes()].concat());
        file.extend(
            [
                text("general.name"),
                8_u32.to_le_bytes().into(),
                text("größer"),
            ]
            .concat(),
        );
        let long = text(&"x".repeat(70_000));
        file.extend(
            [
                text("tokenizer.chat_template"),
                8_u32.to_le_bytes().into(),
                long,
            ]
            .concat(),
        );
        file.extend(
            [
                text("list"),
                9_u32.to_le_bytes().into(),
                0_u32.to_le_bytes().into(),
            ]
            .concat(),
        );
        file.extend([6_u64.to_le_bytes().as_slice(), &[1, 2, 3, 4, 5, 6]].concat());
        file.extend([text("\x1b[2Jweight"), 1_u32.to_le_bytes().into()].concat());
        file.extend(4_u64.to_le_bytes());
        file.extend([24_u32.to_le_bytes().as_slice(), &0_u64.to_le_bytes()].concat());
        file.resize(file.len().next_multiple_of(32), 0);
        file.extend([1, 2, 3, 4]);
        file
    }

    fn inspect(run: fn(&Path, &mut dyn Write) -> anyhow::Result<()>) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        std::fs::write(&path, file()).unwrap();
        let mut out = Vec::new();
        run(&path, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_person_reads_keys_tensors_and_totals() {
        let text = inspect(run);
        for line in [
            "GGUF version 3, tensors aligned to 32",
            "metadata: 3 keys",
            "general.name             \"größer\"",
            "xxx…\" (70,000 bytes)",
            "list                     [1, 2, 3, 4, …] (6 u8)",
            "\\u{1b}[2Jweight  I8        [4]  4 bytes at 70,",
            "(Ingle cannot run it)",
            "parameters: 4",
        ] {
            assert!(text.contains(line), "{line:?} is not in\n{text}");
        }
        assert!(!text.contains('\x1b'));
    }

    #[test]
    fn a_program_reads_json() {
        let parsed: serde_json::Value = serde_json::from_str(&inspect(run_json)).unwrap();
        assert_eq!(parsed["metadata"]["general.name"]["value"], "größer");
        assert_eq!(parsed["metadata"]["list"]["value"]["len"], 6);
        assert_eq!(parsed["tensors"][0]["shape"], json!([4]));
        assert_eq!(parsed["types"]["I8"]["runs"], false);
        assert_eq!(parsed["parameters"], 4);
    }

    #[test]
    fn no_name_reaches_a_terminal_as_a_command() {
        let json = plain(&json!({ "\u{9b}2J": "\x1b[31m\u{202e}ö" }).to_string());
        assert_eq!(json, r#"{"\u009b2J":"\u001b[31m\u202eö"}"#);
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&json).unwrap()["\u{9b}2J"],
            "\x1b[31m\u{202e}ö"
        );
    }

    #[test]
    fn what_is_no_model_is_one_sentence() {
        let mut out = Vec::new();
        let error = run(Path::new("/"), &mut out).unwrap_err();
        assert_eq!(
            error.to_string(),
            "/ is a folder, not a regular file: name a .gguf file"
        );
        assert!(out.is_empty());
    }

    #[test]
    fn texts_that_are_no_text_are_shown_as_bytes() {
        assert_eq!(shown(b"\xff\x00"), "\\xff\\x00");
        assert_eq!(
            shown("ö".repeat(600).as_bytes()).chars().count(),
            121,
            "cut inside no character"
        );
        assert_eq!(
            (grouped(0), grouped(999), grouped(1_000)),
            ("0".into(), "999".into(), "1,000".into())
        );
    }
}
