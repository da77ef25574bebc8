//! How often and after what wait something is tried again.

use std::time::Duration;

use crate::catalog::progress::{FetchEvent, Progress};

use super::error::FetchError;
use super::options::HttpOptions;

/// A server that asks for a longer wait is given up instead.
const RETRY_AFTER_MOST: Duration = Duration::from_secs(20);
/// The wait doubles so often.
const DOUBLINGS_MOST: u32 = 6;

/// Counts tries and waits between them.
pub(super) struct Retries<'a> {
    options: &'a HttpOptions,
    progress: &'a dyn Progress,
    n_tries: u32,
}

impl<'a> Retries<'a> {
    pub(super) fn new(options: &'a HttpOptions, progress: &'a dyn Progress) -> Self {
        Self {
            options,
            progress,
            n_tries: 0,
        }
    }

    /// Something arrived: the count begins anew.
    pub(super) fn renew(&mut self) {
        self.n_tries = 0;
    }

    /// Waits until it is worth trying again after `error`.
    ///
    /// - `is_lost` — it may pass although its kind usually does not
    ///
    /// Errors: `error`, if it will not pass or did not for long.
    pub(super) async fn wait_out(
        &mut self,
        error: FetchError,
        is_lost: bool,
    ) -> Result<(), FetchError> {
        self.n_tries += 1;
        let asked = match &error {
            FetchError::Status {
                retry_after_seconds: Some(seconds),
                ..
            } => Duration::from_secs(*seconds),
            _ => Duration::ZERO,
        };
        let is_hopeless = !(is_lost || error.is_passing());
        if is_hopeless || self.n_tries >= self.options.tries_most || asked > RETRY_AFTER_MOST {
            return Err(error);
        }
        self.progress.event(FetchEvent::Retrying {
            reason: error.to_string(),
        });
        let doublings = (self.n_tries - 1).min(DOUBLINGS_MOST);
        let doubled = self.options.retry_delay.saturating_mul(1 << doublings);
        tokio::time::sleep(doubled.max(asked)).await;
        Ok(())
    }
}
