//! A connection to a product, and what can be asked of it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use vmtask_driver::Credentials;
use vmtask_vix_abi::{Function, Handle, INVALID_HANDLE, Product, error_code, find, property, vm_open};

use crate::api::{Call, Hidden, Value, Vix};
use crate::error::Error;
use crate::job::{Job, Over, Owned, Strays, failed};
use crate::library::Library;
use crate::machine::Vm;
use crate::wait::Wait;

/// Which product on which computer, and who we are to it.
#[derive(Clone, Debug)]
pub struct Connection {
    /// The product.
    pub product: Product,
    /// Where it is: `https://localhost:8333/sdk` for Server 2 (8333 is its port on Windows, 443 on Linux); `None` for the
    /// products that run beside us.
    pub host: Option<String>,
    /// Its port, for Server 1; 0 otherwise.
    pub port: i32,
    /// The account on the host. Server 2 wants one even on the same computer.
    pub credentials: Option<Credentials>,
    /// Whether to refuse a host whose certificate cannot be verified.
    pub verify_certificate: bool,
}

impl Connection {
    /// A product on this computer, without a login.
    #[must_use]
    pub const fn local(product: Product) -> Self {
        Self { product, host: None, port: 0, credentials: None, verify_certificate: false }
    }
}

/// A connection. Virtual machines and snapshots keep it open; the last of them closes it.
#[derive(Clone)]
pub struct Host(Arc<Inner>);

pub(crate) struct Inner {
    vix: Arc<dyn Vix>,
    raw: Handle,
    pub(crate) product: Product,
    strays: Strays,
    is_cut: AtomicBool,
}

impl Inner {
    fn disconnect(&self) {
        if !self.is_cut.swap(true, Ordering::SeqCst) {
            self.vix.disconnect(self.raw);
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Released first: with the connection their handles become invalid, whether they are over or not.
        self.strays.release();
        self.disconnect();
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Host({}, handle {})", self.0.product, self.0.raw)
    }
}

impl Library {
    /// Connects to a product (`VixHost_Connect`).
    ///
    /// # Errors
    /// What VIX says; often that its table lacks the product's version.
    pub fn connect(&self, to: &Connection, wait: &Wait<'_>) -> Result<Host, Error> {
        let call = Call::Connect {
            provider: to.product.provider(),
            host: to.host.as_deref(),
            port: to.port,
            user: to.credentials.as_ref().map(|account| account.user.as_str()),
            password: to.credentials.as_ref().map(|account| Hidden(account.password.expose())),
            options: if to.verify_certificate { vmtask_vix_abi::host_option::VERIFY_SSL_CERT } else { 0 },
        };
        let on = to.host.as_deref().map_or_else(|| to.product.to_string(), |host| format!("{}, {host}", to.product));
        let strays = Strays::default();
        let handle = Job::start(self.vix(), &call, &on, wait)?.wait(&on, wait, &strays)?.handle()?;
        // Disconnecting gives the handle back; there is nothing to release besides.
        let raw = handle.give_away();
        Ok(Host(Arc::new(Inner {
            vix: Arc::clone(self.vix()),
            raw,
            product: to.product,
            strays,
            is_cut: AtomicBool::new(false),
        })))
    }
}

impl Host {
    /// The product.
    #[must_use]
    pub fn product(&self) -> Product {
        self.0.product
    }

    /// Ends the connection while others still use it: from then on VIX says to all of them that it is gone.
    pub(crate) fn cut(&self) {
        self.0.disconnect();
    }

    /// The jobs on this connection that were given up.
    pub(crate) fn strays(&self) -> &Strays {
        &self.0.strays
    }

    fn run(&self, call: &Call<'_>, on: &str, wait: &Wait<'_>) -> Result<Over, Error> {
        Job::start(&self.0.vix, call, on, wait)?.wait(on, wait, &self.0.strays)
    }

    /// The product's version, where the library tells (`VIX_PROPERTY_HOST_SOFTWARE_VERSION`; not all do).
    #[must_use]
    pub fn version(&self) -> Option<String> {
        match self.0.vix.property(self.0.raw, property::HOST_SOFTWARE_VERSION) {
            Ok(Value::Text(version)) if !version.is_empty() => Some(version),
            _ => None,
        }
    }

    /// The API's version, where the library tells (`VIX_PROPERTY_HOST_API_VERSION`).
    #[must_use]
    pub fn api_version(&self) -> Option<i32> {
        match self.0.vix.property(self.0.raw, property::HOST_API_VERSION) {
            Ok(Value::Int(version)) => Some(version),
            _ => None,
        }
    }

    /// Makes a VM known to the product (`VixHost_RegisterVM`). Products without an inventory have nothing to do; a VM
    /// that is known already is no error.
    ///
    /// # Errors
    /// `VIX_E_NOT_FOUND` if there is no such file.
    pub fn register(&self, vmx: &str, wait: &Wait<'_>) -> Result<(), Error> {
        if !self.product().has(Function::HostRegisterVm) {
            return Ok(());
        }
        self.run(&Call::Register { host: self.0.raw, vmx }, vmx, wait).map(drop)
    }

    /// Makes the product forget a VM, which must be off (`VixHost_UnregisterVM`). One that is not known is no error.
    ///
    /// # Errors
    /// What VIX says.
    pub fn unregister(&self, vmx: &str, wait: &Wait<'_>) -> Result<(), Error> {
        if !self.product().has(Function::HostRegisterVm) {
            return Ok(());
        }
        self.run(&Call::Unregister { host: self.0.raw, vmx }, vmx, wait).map(drop)
    }

    /// Opens a VM: with `VixHost_OpenVM` where the product has it, else with `VixVM_Open`.
    ///
    /// # Errors
    /// `VIX_E_VM_NOT_FOUND` or `VIX_E_FILE_NOT_FOUND` if there is none.
    pub fn open(&self, vmx: &str, wait: &Wait<'_>) -> Result<Vm, Error> {
        let host = self.0.raw;
        let newer = Call::HostOpen { host, vmx, options: vm_open::NORMAL, properties: INVALID_HANDLE };
        let older = Call::Open { host, vmx };
        let opened = if self.product().has(Function::HostOpenVm) {
            match self.run(&newer, vmx, wait) {
                // A product that should have it, through a library that is older than VIX 1.8.
                Err(error) if error.is(error_code::NOT_SUPPORTED) => self.run(&older, vmx, wait),
                opened => opened,
            }
        } else {
            self.run(&older, vmx, wait)
        };
        Ok(Vm::new(self, opened?.handle()?, vmx))
    }

    /// Opens an encrypted VM with its password.
    ///
    /// # Errors
    /// What VIX says.
    pub fn open_encrypted(&self, vmx: &str, password: &vmtask_driver::Secret, wait: &Wait<'_>) -> Result<Vm, Error> {
        let password = Hidden(password.expose());
        let list = self
            .0
            .vix
            .property_list(self.0.raw, property::VM_ENCRYPTION_PASSWORD, password)
            .map_err(|code| failed(&*self.0.vix, Function::PropertyListAllocPropertyList, vmx, code))?;
        let list = Owned::new(&self.0.vix, list);
        let call = Call::HostOpen { host: self.0.raw, vmx, options: vm_open::NORMAL, properties: list.raw() };
        let handle = self.run(&call, vmx, wait)?.handle()?;
        Ok(Vm::new(self, handle, vmx))
    }

    /// Where the running VMs are (`VixHost_FindItems`).
    ///
    /// # Errors
    /// What VIX says.
    pub fn running(&self, wait: &Wait<'_>) -> Result<Vec<String>, Error> {
        self.find(find::RUNNING_VMS, wait)
    }

    /// Where the registered VMs are. On Server 2 with the datacentre in front.
    ///
    /// # Errors
    /// What VIX says.
    pub fn registered(&self, wait: &Wait<'_>) -> Result<Vec<String>, Error> {
        self.find(find::REGISTERED_VMS, wait)
    }

    fn find(&self, search: i32, wait: &Wait<'_>) -> Result<Vec<String>, Error> {
        // -1: for as long as it takes; the wait is what bounds it (VIX 1.13 reference, VixHost_FindItems).
        let call = Call::FindItems { host: self.0.raw, search, timeout: -1 };
        Ok(self.run(&call, &self.0.product.to_string(), wait)?.found())
    }
}
