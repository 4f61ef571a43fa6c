//! A small CA: the keys and certificates that nodes show each other on the backplane.
//!
//! Invariants
//! - Keys are ECDSA P-256. A node's certificate is valid for [`node_name`], for both ends of a connection, and for the host names and
//!   addresses that were given for it. A client's is valid for its name, and for no server.
//! - Every CA made here has the same subject; they are told apart by their keys. So a CA is loaded from its key alone.
//!
//! Does not: touch files or clocks. Source: RFC 5280; rcgen.

use std::time::Duration;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SerialNumber, date_time_ymd,
};
use windlass_agent::backplane::tls::node_name;
use windlass_agent::id::NodeId;
use zeroize::Zeroizing;

use crate::engine::host;
use crate::failure::Failure;

/// The CA's subject.
const NAME: &str = "Windlass backplane CA";
/// A certificate is valid from so long before it was made: clocks of appliances differ.
const EARLIER_SECS: i64 = 24 * 3600;
const DAY_SECS: i64 = 24 * 3600;

/// A certificate and its key as PEM.
pub struct Issued {
    /// The certificate.
    pub certificate: String,
    /// The key.
    pub key: Zeroizing<String>,
}

/// A CA that can sign.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// A new one, made at `now_secs` (seconds since 1970, UTC), valid for `days`.
    pub fn make(now_secs: i64, days: u32) -> Result<(Authority, Issued), Failure> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
        let mut params = ca_params()?;
        set_validity(&mut params, now_secs, days);
        let certificate = params.self_signed(&key).map_err(failed)?;
        let issued = pem(&certificate, &key);
        Ok((Authority { issuer: Issuer::new(params, key) }, issued))
    }

    /// From its key's PEM.
    pub fn load(key_pem: &str) -> Result<Authority, Failure> {
        let key = KeyPair::from_pem(key_pem).map_err(failed)?;
        Ok(Authority { issuer: Issuer::new(ca_params()?, key) })
    }

    /// A certificate for `node`, also valid for these host names and addresses, made at `now_secs`, valid for `days`; for a new key or the one
    /// given as PEM.
    pub fn issue_for(
        &self,
        node: NodeId,
        hosts: &[String],
        key_pem: Option<&str>,
        now_secs: i64,
        days: u32,
    ) -> Result<Issued, Failure> {
        let names = std::iter::once(node_name(node)).chain(hosts.iter().cloned()).collect();
        let both = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(names, both, key_pem, now_secs, days)
    }

    /// A certificate for one who asks the API, under this name.
    pub fn issue_client(&self, name: &str, now_secs: i64, days: u32) -> Result<Issued, Failure> {
        self.sign(vec![name.to_owned()], vec![ExtendedKeyUsagePurpose::ClientAuth], None, now_secs, days)
    }

    /// A certificate for `node`, made at `now_secs`, valid for `days`; for a new key or the one given as PEM.
    pub fn issue(
        &self,
        node: NodeId,
        key_pem: Option<&str>,
        now_secs: i64,
        days: u32,
    ) -> Result<Issued, Failure> {
        self.issue_for(node, &[], key_pem, now_secs, days)
    }

    /// A certificate for these names, the first of which is the subject's.
    fn sign(
        &self,
        names: Vec<String>,
        usages: Vec<ExtendedKeyUsagePurpose>,
        key_pem: Option<&str>,
        now_secs: i64,
        days: u32,
    ) -> Result<Issued, Failure> {
        let key = match key_pem {
            Some(pem) => KeyPair::from_pem(pem),
            None => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256),
        };
        let key = key.map_err(failed)?;
        let name = names.first().cloned().unwrap_or_default();
        let mut params = CertificateParams::new(names).map_err(failed)?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = usages;
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(serial()?);
        set_validity(&mut params, now_secs, days);
        let certificate = params.signed_by(&key, &self.issuer).map_err(failed)?;
        Ok(pem(&certificate, &key))
    }
}

fn ca_params() -> Result<CertificateParams, Failure> {
    let mut params = CertificateParams::new(Vec::new()).map_err(failed)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, NAME);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.serial_number = Some(serial()?);
    Ok(params)
}

/// Random, 127 bits: positive in 16 bytes.
fn serial() -> Result<SerialNumber, Failure> {
    let mut bytes = host::random::<16>()?;
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

fn set_validity(params: &mut CertificateParams, now_secs: i64, days: u32) {
    let moment =
        |secs: i64| date_time_ymd(1970, 1, 1) + Duration::from_secs(u64::try_from(secs).unwrap_or(0));
    params.not_before = moment(now_secs.saturating_sub(EARLIER_SECS));
    params.not_after = moment(now_secs.saturating_add(i64::from(days) * DAY_SECS));
}

fn pem(certificate: &Certificate, key: &KeyPair) -> Issued {
    Issued { certificate: certificate.pem(), key: Zeroizing::new(key.serialize_pem()) }
}

fn failed(error: rcgen::Error) -> Failure {
    Failure::at("certificate", error)
}
