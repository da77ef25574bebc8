//! The header of a file to be, and the file around tensors that somebody else makes.

use std::io::{self, Write};

use super::header::HeaderError;
use super::tensor_type::TensorType;
use super::value::{Value, ValueType};

/// What tensors are aligned to: GGUF's default, so that no key has to say it. Units: bytes.
const ALIGNMENT: usize = 32;
/// As much padding as there can be.
const ZEROS: [u8; ALIGNMENT] = [0; ALIGNMENT];

/// A GGUF file of version 3 to be: its keys, then its tensors, in the order they were named.
#[derive(Debug, Default)]
pub struct Writer {
    n_keys: u64,
    keys: Vec<u8>,
    tensors: Vec<NewTensor>,
}

/// A tensor of a file to be.
#[derive(Clone, Debug)]
pub struct NewTensor {
    /// Its name, e.g. `blk.0.attn_q.weight`.
    pub name: String,
    /// How its numbers are stored.
    pub ty: TensorType,
    /// Lengths, the contiguous one first.
    pub dims: Vec<u64>,
    /// Bytes it takes.
    pub n_bytes: u64,
}

impl Writer {
    /// Adds a key.
    pub fn key(&mut self, key: &str, value: Value<'_>) {
        self.begin_key(key, value.value_type());
        encode(value, &mut self.keys);
    }

    /// Adds a key with an array of `element`s, each of `values` being one.
    pub fn array<'a>(
        &mut self,
        key: &str,
        element: ValueType,
        values: impl Iterator<Item = Value<'a>>,
    ) {
        self.begin_key(key, ValueType::Array);
        self.keys.extend((element as u32).to_le_bytes());
        let len_at = self.keys.len();
        self.keys.extend(0_u64.to_le_bytes());
        let mut len = 0_u64;
        for value in values {
            encode(value, &mut self.keys);
            len += 1;
        }
        self.keys[len_at..len_at + 8].copy_from_slice(&len.to_le_bytes());
    }

    fn begin_key(&mut self, key: &str, ty: ValueType) {
        self.n_keys += 1;
        encode(Value::Str(key.as_bytes()), &mut self.keys);
        self.keys.extend((ty as u32).to_le_bytes());
    }

    /// Adds a tensor of `dims`, the contiguous one first.
    ///
    /// # Errors
    /// [`HeaderError`]: a row is no whole number of blocks, or the sizes do not fit 64 bits.
    pub fn tensor(&mut self, name: &str, ty: TensorType, dims: &[u64]) -> Result<(), HeaderError> {
        let n_bytes = ty.tensor_bytes(dims).ok_or_else(|| {
            let len = dims.first().copied().unwrap_or_default();
            let (ty, block_len) = (ty.name(), ty.block_len());
            let (tensor, dims) = (name.to_owned(), dims.to_vec());
            if len.is_multiple_of(block_len) {
                return HeaderError::Overflow { tensor, dims };
            }
            HeaderError::RowLen {
                tensor,
                len,
                ty,
                block_len,
            }
        })?;
        self.tensors.push(NewTensor {
            name: name.to_owned(),
            ty,
            dims: dims.to_vec(),
            n_bytes,
        });
        Ok(())
    }

    /// Writes the file; `fill` is asked for the bytes of each tensor, in order.
    ///
    /// # Errors
    /// What `out` or `fill` says.
    ///
    /// Panics: when `fill` writes another number of bytes than the tensor takes.
    pub fn write(
        &self,
        out: &mut dyn Write,
        fill: &mut dyn FnMut(&NewTensor, &mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        let header = self.header();
        out.write_all(&header)?;
        out.write_all(padding(header.len() as u64))?;
        for tensor in &self.tensors {
            let mut counted = Counted { out, n_bytes: 0 };
            fill(tensor, &mut counted)?;
            let n_bytes = counted.n_bytes;
            assert_eq!(n_bytes, tensor.n_bytes, "bytes of tensor {}", tensor.name);
            out.write_all(padding(n_bytes))?;
        }
        Ok(())
    }

    fn header(&self) -> Vec<u8> {
        let mut header = b"GGUF".to_vec();
        header.extend(3_u32.to_le_bytes());
        header.extend((self.tensors.len() as u64).to_le_bytes());
        header.extend(self.n_keys.to_le_bytes());
        header.extend_from_slice(&self.keys);
        let mut offset = 0_u64;
        for tensor in &self.tensors {
            encode(Value::Str(tensor.name.as_bytes()), &mut header);
            header.extend(
                u32::try_from(tensor.dims.len())
                    .unwrap_or(u32::MAX)
                    .to_le_bytes(),
            );
            header.extend(tensor.dims.iter().flat_map(|dim| dim.to_le_bytes()));
            header.extend(tensor.ty.id().to_le_bytes());
            header.extend(offset.to_le_bytes());
            offset += tensor.n_bytes + padding(tensor.n_bytes).len() as u64;
        }
        header
    }
}

/// Counts what goes through.
struct Counted<'a> {
    out: &'a mut dyn Write,
    n_bytes: u64,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n_bytes = self.out.write(bytes)?;
        self.n_bytes += n_bytes as u64;
        Ok(n_bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// The zeros behind `n_bytes` up to where the next tensor may start.
fn padding(n_bytes: u64) -> &'static [u8] {
    let n_zeros = n_bytes.next_multiple_of(ALIGNMENT as u64) - n_bytes;
    &ZEROS[..usize::try_from(n_zeros).unwrap_or_default()]
}

/// Appends a value as the file has it, without its type.
fn encode(value: Value<'_>, out: &mut Vec<u8>) {
    match value {
        Value::U8(v) => out.push(v),
        Value::I8(v) => out.extend(v.to_le_bytes()),
        Value::U16(v) => out.extend(v.to_le_bytes()),
        Value::I16(v) => out.extend(v.to_le_bytes()),
        Value::U32(v) => out.extend(v.to_le_bytes()),
        Value::I32(v) => out.extend(v.to_le_bytes()),
        Value::F32(v) => out.extend(v.to_le_bytes()),
        Value::Bool(v) => out.push(u8::from(v)),
        Value::Str(text) => {
            out.extend((text.len() as u64).to_le_bytes());
            out.extend_from_slice(text);
        }
        Value::Array(array) => {
            out.extend((array.element_type() as u32).to_le_bytes());
            out.extend((array.len() as u64).to_le_bytes());
            out.extend_from_slice(array.bytes());
        }
        Value::U64(v) => out.extend(v.to_le_bytes()),
        Value::I64(v) => out.extend(v.to_le_bytes()),
        Value::F64(v) => out.extend(v.to_le_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Gguf;
    use super::*;

    fn file(writer: &Writer, byte: u8) -> Gguf {
        let mut bytes = Vec::new();
        let mut fill = |tensor: &NewTensor, out: &mut dyn Write| {
            (0..tensor.n_bytes).try_for_each(|_| out.write_all(&[byte]))
        };
        writer.write(&mut bytes, &mut fill).unwrap();
        Gguf::from_bytes(Path::new("written.gguf"), bytes).unwrap()
    }

    #[test]
    fn what_was_written_is_read_and_copied() {
        let mut writer = Writer::default();
        writer.key("one", Value::U32(7));
        writer.key("half", Value::F32(0.5));
        writer.array(
            "texts",
            ValueType::Str,
            [&b"a"[..], b"", b"long"].into_iter().map(Value::Str),
        );
        let q8_0 = TensorType::from_name("Q8_0").unwrap();
        writer.tensor("first", q8_0, &[32, 1]).unwrap();
        writer.tensor("second", q8_0, &[64, 3]).unwrap();
        let read = file(&writer, 1);
        assert_eq!(read.metadata().u32("one").unwrap(), 7);
        let second = read.tensor("second").unwrap();
        assert_eq!(
            (&*second.dims, second.ty, second.n_bytes()),
            (&[64, 3][..], q8_0, 204)
        );
        assert_eq!(&read.bytes(second)[..], &[1; 204][..]);

        let mut copy = Writer::default();
        for key in read.metadata().keys() {
            copy.key(key, read.metadata().value(key).unwrap().unwrap());
        }
        let copy = file(&copy, 0);
        assert_eq!(copy.metadata().f32("half").unwrap(), 0.5);
        let texts: Vec<&[u8]> = copy.metadata().strings("texts").unwrap().iter().collect();
        assert_eq!(texts, [&b"a"[..], b"", b"long"]);
    }

    #[test]
    fn half_a_block_is_refused() {
        let q4_k = TensorType::from_name("Q4_K").unwrap();
        let error = Writer::default()
            .tensor("odd", q4_k, &[100, 2])
            .unwrap_err();
        assert!(
            error.to_string().contains("not a multiple of the 256"),
            "{error}"
        );
    }
}
