//! Pruning a disk's layers while the guest runs.
//!
//! ```text
//!   base <- 1 (frozen, its checkpoint gone) <- 2 (frozen, wanted) <- 3 (written to)
//!   base <-------------------------------- 2 + what 1 held       <- 3
//! ```
//! The order is what survives a kill at any moment: copy what the lower layer holds into the upper one, wait until that is
//! all there, flush it, and only then let QEMU rewrite which layer it stands on; then the manifests; the file goes last.
//! A plain `block-stream` or `block-commit` rewrites that name before the data is flushed, and lost checkpoints in trials.

use std::time::Duration;

use serde_json::{Value, json};
use vmtask_driver::{EffectToken, PortError};

use crate::fault::{Fault, during};
use crate::instance::InstanceError;
use crate::live::Live;
use crate::vm::QemuVm;
use crate::wait::Wait;

const JOB: &str = "merge";

impl QemuVm {
    /// Merges every layer that no checkpoint needs by itself into the one above it.
    pub(crate) fn merge_layers(&self, live: &Live, token: &EffectToken, wait: Wait<'_>) -> Result<(), PortError> {
        // The rest is for giving up. What is left is merged at the next.
        let merging = wait.share(90);
        while let Some(index) = self.superfluous(live) {
            match self.merge(live, index, token, &merging) {
                Ok(()) => {}
                Err(error) => {
                    // Harmless as long as nothing was unlinked: the chain is longer than it need be.
                    let _ = live.instance.call("job-cancel", json!({ "id": JOB }), &wait);
                    tracing::warn!(%error, "a disk layer was not merged; trying again after the next checkpoint");
                    return if token.is_revoked() { Err(error) } else { Ok(()) };
                }
            }
        }
        Ok(())
    }

    /// The lowest layer that is neither the base, nor the top of a checkpoint, nor written to, nor part of a chain that
    /// goes on differently from ours.
    fn superfluous(&self, live: &Live) -> Option<usize> {
        let names: Vec<String> = crate::snapshot::layer_names(live);
        // A manifest that cannot be read may need any of them.
        let manifests = self.store.manifests().inspect_err(|error| tracing::warn!(%error, "no disk layer is merged"));
        let kept: Vec<Vec<String>> = manifests.ok()?.into_iter().map(|manifest| manifest.kept.disk).collect();
        (1..names.len().saturating_sub(1)).find(|&index| {
            kept.iter().all(|chain| match chain.iter().position(|name| *name == names[index]) {
                None => true,
                Some(at) => chain.get(at + 1) == Some(&names[index + 1]),
            })
        })
    }

    fn merge(&self, live: &Live, index: usize, token: &EffectToken, wait: &Wait<'_>) -> Result<(), PortError> {
        let what = "merging disk layers";
        let (below, gone, above) = {
            let layers = live.layers();
            (layers[index - 1].clone(), layers[index].clone(), layers[index + 1].clone())
        };
        let instance = &live.instance;
        let stream = json!({
            "job-id": JOB, "device": above.node, "base-node": below.node,
            "auto-finalize": false, "auto-dismiss": false,
        });
        instance.call("block-stream", stream, wait).map_err(during(what))?;
        self.wait_job(live, "pending", wait)?;
        let flush = json!({ "command-line": format!("qemu-io {} flush", above.node) });
        instance.call("human-monitor-command", flush, wait).map_err(during(what))?;
        std::fs::File::open(&above.file).and_then(|file| file.sync_all()).map_err(during(what))?;
        instance.call("job-finalize", json!({ "id": JOB }), wait).map_err(during(what))?;
        self.wait_job(live, "concluded", wait)?;
        instance.call("job-dismiss", json!({ "id": JOB }), wait).map_err(during(what))?;
        live.layers().remove(index);
        let name = gone.file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        for mut manifest in self.store.manifests().map_err(during(what))? {
            if manifest.kept.disk.contains(&name) {
                manifest.kept.disk.retain(|layer| *layer != name);
                self.store.rewrite(&manifest, wait)?;
            }
        }
        // QEMU may have let go of it by itself.
        let _ = instance.call("blockdev-del", json!({ "node-name": gone.node }), wait);
        token.act(|| crate::durable::gone(std::fs::remove_file(&gone.file)))?.map_err(during(what))
    }

    fn wait_job(&self, live: &Live, status: &str, wait: &Wait<'_>) -> Result<(), PortError> {
        loop {
            let jobs = live.instance.call("query-jobs", json!({}), wait).map_err(during("merging disk layers"))?;
            let job = jobs
                .as_array()
                .and_then(|jobs| jobs.iter().find(|job| job.get("id").and_then(Value::as_str) == Some(JOB)));
            let now = job.and_then(|job| job.get("status")).and_then(Value::as_str);
            let error = job.and_then(|job| job.get("error")).and_then(Value::as_str);
            if let Some(error) = error {
                return Err(InstanceError::Incoming(error.to_owned()).during("merging disk layers"));
            }
            match now {
                Some(now) if now == status => return Ok(()),
                None | Some("concluded") => {
                    return Err(InstanceError::Incoming("the job is gone".into()).during("merging disk layers"));
                }
                Some(_) => {}
            }
            wait.sleep(Duration::from_millis(10)).map_err(during("merging disk layers"))?;
        }
    }
}
