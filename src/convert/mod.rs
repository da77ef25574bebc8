//! Models made into GGUF files of other weight types, from a folder as Hugging Face has it or from
//! another GGUF file.
//!
//! Weights stream from file to file, some rows at a time: what is held in memory does not grow with the
//! model. Every type, shape and offset is decided before the first weight is read.

mod error;
mod files;
mod folder;
mod importance;
mod mix;
mod source;

use std::io::{self, Write};
use std::path::Path;

use ingle_kernels::encode::Recode;
use ingle_kernels::{Turn, WeightType};

use crate::gguf::{NewTensor, TensorType, Value, Writer, printable};
pub use error::Error;
use files::Part;
pub use importance::Importance;
pub use mix::Mix;
use mix::{Mixer, is_quantized};
pub use source::Source;
use source::Tensor;

/// Weights read at once. A row is never cut.
const CHUNK_WEIGHTS: usize = 1 << 21;
/// The version of the quantised types' layouts.
const QUANTIZATION_VERSION: u32 = 2;
/// The longest text of a key of the importance.
const TEXT_BYTES_MOST: usize = 127;

/// What is to be made of a model.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// The mix of types.
    pub mix: Mix,
    /// What the output matrix is to be in, whatever the mix.
    pub output: Option<WeightType>,
    /// What the embedding is to be in, whatever the mix.
    pub embedding: Option<WeightType>,
    /// How much an error in each weight matters, and the name of the file that says it.
    pub importance: Option<(&'a Importance, &'a str)>,
    /// Whether weights that are quantised already may be quantised again.
    pub requantize: Requantize,
}

/// Whether weights that are quantised already may be quantised again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requantize {
    /// Q8_0 only, which loses next to nothing.
    Nearly,
    /// All.
    Any,
}

/// What was made.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "each says what it is")]
pub struct Summary {
    pub n_tensors: usize,
    pub n_weights: u64,
    /// Of the weights, before and after.
    pub bytes_before: u64,
    pub bytes_after: u64,
    pub file_bytes: u64,
    /// Tensors in a type of smaller blocks than the mix has, their rows being no whole number of its own.
    pub n_fallbacks: usize,
    /// Quantised tensors of which the importance matrix says nothing.
    pub without_importance: Vec<String>,
}

/// How far it is, and whether to go on.
pub trait Watch {
    /// Told after each piece. Units: bytes of the file to be.
    fn progress(&mut self, done: u64, total: u64);
    /// Asked after each piece.
    fn is_interrupted(&self) -> bool;
}

/// A tensor of the file to be, and what it is made of.
struct Planned<'a> {
    tensor: Tensor<'a>,
    to: TensorType,
    importance: Option<&'a [f32]>,
}

/// Writes `source` as a GGUF file. It has its name once it is whole and on the disk.
///
/// # Errors
/// The source cannot be read or says what cannot be; the file cannot be written; a weight is not finite.
pub fn quantize(
    source: &Source,
    options: &Options<'_>,
    turn: &Turn<'_>,
    out: &Path,
    watch: &mut dyn Watch,
) -> Result<Summary, Error> {
    if source.is_at(out) {
        return Err(Error::Itself { path: out.into() });
    }
    if out.is_dir() {
        return Err(Error::NotAFile { path: out.into() });
    }
    let (planned, mut summary) = plan(source, options)?;
    let mut writer = Writer::default();
    source.write_keys(&mut writer)?;
    write_keys(options, &mut writer);
    for planned in &planned {
        writer.tensor(planned.tensor.name(), planned.to, planned.tensor.dims())?;
    }
    let mut part = Part::begin(out)?;
    let mut done = 0;
    let mut failed = None;
    let mut next = planned.iter();
    let total = summary.bytes_after;
    let mut fill = |_: &NewTensor, out: &mut dyn Write| {
        let Some(planned) = next.next() else {
            return Ok(());
        };
        let mut told = |n_bytes: usize| {
            done += n_bytes as u64;
            watch.progress(done, total);
            !watch.is_interrupted()
        };
        recode(source, planned, turn, out, &mut told).map_err(|error| match error {
            Stopped::Writing(error) => error,
            Stopped::Reading(error) => {
                failed = Some(error);
                io::Error::other("the source cannot be read")
            }
        })
    };
    let Some(sink) = part.out() else {
        return Ok(summary);
    };
    let written = writer.write(sink, &mut fill);
    if let Some(error) = failed {
        return Err(error);
    }
    written.map_err(Error::io(out))?;
    summary.file_bytes = part.finish()?;
    Ok(summary)
}

/// Decides every type, in the order of the file to be.
fn plan<'a>(
    source: &'a Source,
    options: &Options<'a>,
) -> Result<(Vec<Planned<'a>>, Summary), Error> {
    let mut tensors = source.tensors();
    tensors.sort_by(|a, b| place(a.name()).cmp(&place(b.name())));
    let mut network = source.network()?;
    network.has_importance = options.importance.is_some();
    network.has_output = tensors
        .iter()
        .any(|tensor| tensor.name() == "output.weight");
    let mut mixer = Mixer::new(options.mix, network);
    mixer.output = options.output;
    mixer.embedding = options.embedding;
    let mut summary = Summary {
        n_tensors: tensors.len(),
        n_weights: 0,
        bytes_before: 0,
        bytes_after: 0,
        file_bytes: 0,
        n_fallbacks: 0,
        without_importance: Vec::new(),
    };
    let mut planned = Vec::with_capacity(tensors.len());
    for tensor in tensors {
        let name = tensor.name();
        let to = mixer.ty(name, tensor.dims(), tensor.plain())?;
        check_recodable(&tensor, to, options.requantize)?;
        let mut importance = None;
        if let Some((matrix, _)) = options.importance
            && is_quantized(name, tensor.dims())
            && to.weight_type().is_some_and(WeightType::takes_quantized)
            && to != tensor.ty()
        {
            importance = columns(matrix, &tensor)?;
            if importance.is_none() {
                summary.without_importance.push(name.to_owned());
            }
        }
        summary.n_weights += tensor.dims().iter().product::<u64>();
        summary.bytes_before += tensor.ty().tensor_bytes(tensor.dims()).unwrap_or(0);
        summary.bytes_after += to.tensor_bytes(tensor.dims()).unwrap_or(0);
        planned.push(Planned {
            tensor,
            to,
            importance,
        });
    }
    summary.n_fallbacks = mixer.n_fallbacks;
    Ok((planned, summary))
}

/// Where a tensor stands in the file to be: what belongs to no layer first, then layer by layer.
fn place(name: &str) -> (Option<u64>, &str) {
    let layer = name
        .strip_prefix("blk.")
        .and_then(|rest| rest.split_once('.'));
    let layer = layer.and_then(|(layer, _)| layer.parse().ok());
    (layer, name)
}

fn check_recodable(
    tensor: &Tensor<'_>,
    to: TensorType,
    requantize: Requantize,
) -> Result<(), Error> {
    let from = tensor.ty();
    if to == from {
        return Ok(());
    }
    let Some(weight) = from.weight_type() else {
        let problem = format!("is {from}, which cannot be decoded here");
        return Err(Error::tensor(tensor.name(), problem));
    };
    let is_near = !weight.takes_quantized() || weight == WeightType::Q8_0;
    if is_near || requantize == Requantize::Any {
        return Ok(());
    }
    Err(Error::Quantized {
        tensor: printable(tensor.name()),
        ty: from.name(),
    })
}

/// The importance of a tensor's columns.
fn columns<'a>(matrix: &'a Importance, tensor: &Tensor<'_>) -> Result<Option<&'a [f32]>, Error> {
    let Some(columns) = matrix.of(tensor.name()) else {
        return Ok(None);
    };
    let n_columns = tensor.dims().first().copied().unwrap_or_default();
    if columns.len() as u64 == n_columns {
        return Ok(Some(columns));
    }
    // What is measured for the embedding is its use as the output.
    if tensor.name() == "token_embd.weight" {
        return Ok(None);
    }
    let problem = format!(
        "has {n_columns} columns and the importance matrix {}: it is another model's",
        columns.len()
    );
    Err(Error::tensor(tensor.name(), problem))
}

/// The keys of the quantisation.
fn write_keys(options: &Options<'_>, writer: &mut Writer) {
    writer.key(
        "general.quantization_version",
        Value::U32(QUANTIZATION_VERSION),
    );
    writer.key("general.file_type", Value::U32(options.mix as u32));
    let Some((importance, file)) = options.importance else {
        return;
    };
    let mut text = |key: &str, text: &str| {
        let end = text.floor_char_boundary(TEXT_BYTES_MOST);
        writer.key(key, Value::Str(&text.as_bytes()[..end]));
    };
    text("quantize.imatrix.file", file);
    if let Some(dataset) = &importance.dataset {
        text("quantize.imatrix.dataset", dataset);
    }
    let n_entries = u32::try_from(importance.len()).unwrap_or(u32::MAX);
    writer.key("quantize.imatrix.entries_count", Value::U32(n_entries));
    if importance.n_chunks > 0 {
        let n_chunks = Value::U32(importance.n_chunks);
        writer.key("quantize.imatrix.chunks_count", n_chunks);
    }
}

/// Why a tensor is not written.
enum Stopped {
    Reading(Error),
    Writing(io::Error),
}

impl From<Error> for Stopped {
    fn from(error: Error) -> Self {
        Self::Reading(error)
    }
}

/// Writes a tensor, some rows at a time. `told` is told how many bytes were written, and says whether to
/// go on.
fn recode(
    source: &Source,
    planned: &Planned<'_>,
    turn: &Turn<'_>,
    out: &mut dyn Write,
    told: &mut dyn FnMut(usize) -> bool,
) -> Result<(), Stopped> {
    let tensor = &planned.tensor;
    let (from, to) = (tensor.ty(), planned.to);
    let too_long = || Error::tensor(tensor.name(), "has too many weights for this machine");
    let size = |number: u64| usize::try_from(number).map_err(|_| too_long());
    let k = tensor.dims().first().copied().unwrap_or(1);
    let n_rows = size(tensor.dims().iter().skip(1).product())?;
    let row_bytes = |ty: TensorType| ty.tensor_bytes(&[k]).ok_or_else(too_long).and_then(size);
    let (from_bytes, to_bytes) = (row_bytes(from)?, row_bytes(to)?);
    let rows_at_once = (CHUNK_WEIGHTS / size(k)?.max(1)).clamp(1, n_rows.max(1));
    let mut read = vec![0; rows_at_once * from_bytes];
    let mut written = vec![0; rows_at_once * to_bytes];
    for start in (0..n_rows).step_by(rows_at_once) {
        let rows = start..n_rows.min(start + rows_at_once);
        let read = &mut read[..rows.len() * from_bytes];
        let written = &mut written[..rows.len() * to_bytes];
        source.read(tensor, rows, from_bytes, read)?;
        let bytes = match (from.weight_type(), to.weight_type()) {
            // Floats that stay what they are go through it as well: it finds what is not finite.
            (Some(from), Some(to)) if from != to || !from.takes_quantized() => {
                let recode = Recode {
                    from,
                    to,
                    k: size(k)?,
                    importance: planned.importance,
                };
                recode
                    .rows(turn, read, written)
                    .map_err(|problem| Error::Recode {
                        tensor: printable(tensor.name()),
                        problem,
                    })?;
                written
            }
            _ => read,
        };
        out.write_all(bytes).map_err(Stopped::Writing)?;
        if !told(bytes.len()) {
            return Err(Error::Interrupted.into());
        }
    }
    Ok(())
}
