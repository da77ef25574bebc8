//! Leaving the machine is a permit: who has none cannot do it, and `--offline` issues none.

/// Why no permit was issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The program was told to stay on this machine.
    #[error("nothing is fetched in offline mode: leave --offline (INGLE_OFFLINE) out to allow it")]
    Offline,
}

/// What may leave this machine. There is one, made from the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Egress {
    offline: bool,
}

impl Egress {
    /// The rule for this process.
    pub fn new(offline: bool) -> Self {
        Self { offline }
    }

    /// The permit to fetch model files.
    ///
    /// # Errors
    /// [`Error::Offline`].
    pub fn model_fetch(self) -> Result<ModelFetch, Error> {
        if self.offline {
            return Err(Error::Offline);
        }
        Ok(ModelFetch(()))
    }
}

/// The permit to fetch model files from where the catalogue says. Only [`Egress`] makes one.
#[derive(Clone, Debug)]
pub struct ModelFetch(());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offline_issues_no_permit() {
        assert_eq!(Egress::new(true).model_fetch().err(), Some(Error::Offline));
        assert!(Egress::new(false).model_fetch().is_ok());
    }
}
