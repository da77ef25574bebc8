//! The numbers of a step, where its operations read them.

use ingle_kernels::cuda::Indices;

use super::batch::Batch;
#[cfg(feature = "cuda")]
use super::cuda::AttentionPlace;

/// A batch's numbers on the host and, where the stage is on a GPU, there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Inputs<'a> {
    pub(super) token_ids: Indices<'a>,
    pub(super) positions: Indices<'a>,
    pub(super) slot_mapping: Indices<'a>,
    pub(super) logit_rows: Indices<'a>,
    /// How attention is cut on the GPU.
    #[cfg(feature = "cuda")]
    pub(super) attention: Option<AttentionPlace<'a>>,
}

impl<'a> Inputs<'a> {
    /// Those of a stage on the processor.
    pub(super) fn on_host(batch: &'a Batch) -> Self {
        Self {
            token_ids: Indices::on_host(&batch.token_ids),
            positions: Indices::on_host(&batch.positions),
            slot_mapping: Indices::on_host(&batch.slot_mapping),
            logit_rows: Indices::on_host(&batch.logit_rows),
            #[cfg(feature = "cuda")]
            attention: None,
        }
    }
}
