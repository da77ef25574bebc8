//! Which files go into a bundle, and what is known of them.

use std::path::Path;

use super::{Packing, Source, source};
use crate::catalog::bundle::{
    BundleError, BundledFile, BundledKind, BundledModel, FromCatalogue, layout,
};
use crate::catalog::carried;
use crate::catalog::checked::{CarriedName, Id};
use crate::catalog::folders::siblings;
use crate::catalog::local::{LocalModel, Origin};
use crate::catalog::manifest::{self, License, Manifest};
use crate::catalog::receipt::Receipt;

/// A model that goes into a bundle.
pub(super) struct Chosen {
    kind: BundledKind,
    license: Option<License>,
    pub(super) sources: Vec<Source>,
}

impl Chosen {
    pub(super) fn bundled(&self) -> BundledModel {
        BundledModel {
            license: self.license.clone(),
            kind: self.kind.clone(),
            files: self
                .sources
                .iter()
                .map(|source| source.file.clone())
                .collect(),
        }
    }

    fn name(&self) -> &str {
        match &self.kind {
            BundledKind::Catalogue(model) => model.id.as_str(),
            BundledKind::File(name) => name.as_str(),
        }
    }
}

/// The models that were named, by name and each once.
pub(super) fn choose(packing: Packing<'_>) -> Result<Vec<Chosen>, BundleError> {
    let mut chosen = Vec::with_capacity(packing.models.len());
    for name in packing.models {
        chosen.push(match packing.store.local(name)? {
            Some(model) => local(&model)?,
            None => of_catalogue(packing, packing.catalog.find(name)?)?,
        });
    }
    chosen.sort_by(|left, right| left.name().cmp(right.name()));
    chosen.dedup_by(|left, right| left.kind == right.kind);
    Ok(chosen)
}

/// A model that is used where it lies.
fn local(model: &LocalModel) -> Result<Chosen, BundleError> {
    let not_carried = |problem: String| BundleError::NotCarried {
        name: model.name.clone(),
        problem,
    };
    model
        .facts()
        .map_err(|error| not_carried(error.to_string()))?;
    let license = match &model.origin {
        Origin::Import(import) => import.license.clone(),
        Origin::Folder(_) => None,
    };
    let license = license.map(|name| License { name, gated: false });
    // Folders before a name tell files apart here, and there is one folder there.
    let name = model.name.rsplit('/').next().unwrap_or(&model.name);
    let plain = |letter: char| {
        let is_plain = letter.is_ascii_alphanumeric() || "._-+:".contains(letter);
        if is_plain { letter } else { '-' }
    };
    let name =
        CarriedName::new(name.chars().map(plain).collect::<String>()).map_err(not_carried)?;
    let n_files = model.files.len();
    let mut sources = Vec::with_capacity(n_files);
    for (idx, path) in model.files.iter().enumerate() {
        sources.push(source(path, layout::file_path(&name, idx + 1, n_files))?);
    }
    Ok(Chosen {
        kind: BundledKind::File(name),
        license,
        sources,
    })
}

fn of_catalogue(packing: Packing<'_>, manifest: &Manifest) -> Result<Chosen, BundleError> {
    let not_carried = |problem: String| BundleError::NotCarried {
        name: manifest.id.clone(),
        problem,
    };
    let here = packing.store.installed(manifest).ok_or_else(|| {
        not_carried(format!(
            "it is not here: fetch it with ingle pull {}",
            manifest.id
        ))
    })?;
    let is_in_place = |source: &manifest::Source| match source {
        manifest::Source::File(file) => file.path == here,
        _ => false,
    };
    if manifest.sources.iter().any(is_in_place) {
        return in_place(manifest, &here);
    }
    let id = Id::new(manifest.id.as_str()).map_err(not_carried)?;
    let folder = packing.store.home().join("models").join(id.as_str());
    let gone = || not_carried(format!("{} cannot be read", folder.display()));
    let receipt = Receipt::read(&folder, id.as_str()).ok_or_else(gone)?;
    let commit = receipt.commit.clone();
    let model = receipt.model(&folder, id.to_string()).ok_or_else(gone)?;
    let text = packing.catalog.text(&manifest.id).unwrap_or_default();
    let sources = model.files.into_iter().map(|file| Source {
        disk: folder.join(file.name.as_str()),
        file: BundledFile {
            path: format!("models/{id}/{}", file.name),
            from: file.from,
            size_bytes: file.size_bytes,
            sha256: file.sha256,
        },
    });
    Ok(Chosen {
        license: manifest.license.clone(),
        sources: sources.collect(),
        kind: BundledKind::Catalogue(FromCatalogue {
            manifest: carried::outgoing(&manifest.id, text).map_err(not_carried)?,
            template: manifest.chat_template.clone(),
            source: model.source,
            commit,
            id,
        }),
    })
}

/// A model of the catalogue whose file is used where it lies: it goes as a file.
fn in_place(manifest: &Manifest, path: &Path) -> Result<Chosen, BundleError> {
    let files = siblings(path).ok_or_else(|| BundleError::NotCarried {
        name: manifest.id.clone(),
        problem: format!("{} is no GGUF file", path.display()),
    })?;
    let chosen = local(&LocalModel {
        name: manifest.id.clone(),
        path: path.to_owned(),
        files,
        origin: Origin::Folder(path.parent().unwrap_or(path).to_owned()),
    })?;
    Ok(Chosen {
        license: manifest.license.clone(),
        ..chosen
    })
}
