//! Prices of launches, and of clusters.

use crate::error::{JobError, Result};

/// The file in the folder of a launch with the highest price that it was offered at, in dollars an hour. It is no field of the
/// registry: with one that it does not know, the Python server drops every record.
pub(crate) const PRICE: &str = "price.json";

/// The price of a launch or a cluster: of all its nodes, in dollars an hour.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Offer {
    /// Those of the cheapest and of the dearest machines that it may get; `None` where a price is not known.
    pub hourly: Option<(f64, f64)>,
    /// The machines, their region and the source of the price; or the reason why it is not known.
    pub note: String,
}

impl Offer {
    pub(crate) fn known(price: f64, note: impl Into<String>) -> Self {
        Self {
            hourly: Some((price, price)),
            note: note.into(),
        }
    }

    pub(crate) fn unknown(reason: impl Into<String>) -> Self {
        Self {
            hourly: None,
            note: reason.into(),
        }
    }

    /// Returns the highest price without the digits that a sum of fractions leaves: a hundredth of a cent is enough.
    pub(crate) fn highest(&self) -> Option<f64> {
        Some((self.hourly?.1 * 1e4).round() / 1e4)
    }

    pub(crate) fn text(&self) -> String {
        let note = &self.note;
        match self.hourly {
            None => format!("not known: {note}"),
            Some((low, high)) if low < high => format!("${low:.2} to ${high:.2} an hour ({note})"),
            Some((price, _)) => format!("${price:.2} an hour ({note})"),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct ClusterInfo {
    pub name: String,
    /// The cloud, by Oumi's name.
    pub cloud: Option<String>,
    /// Status, resources, cloud and region.
    pub summary: String,
    /// Its machines cost nothing until a launch starts it again.
    pub is_stopped: bool,
    pub offer: Offer,
}

/// Returns Oumi's name for a cloud that SkyPilot or Oumi names.
pub(crate) fn oumi_cloud(name: &str) -> String {
    let name = name.trim().to_lowercase();
    match name.as_str() {
        "kubernetes" => "k8s".to_owned(),
        "slurm" => "sky-slurm".to_owned(),
        _ => name,
    }
}

/// The clouds of SkyPilot 0.12 on which Oumi 0.9 launches nothing. A cluster that was launched there by hand can be asked about and
/// ended.
const BY_HAND: &str = "cudo do fluidstack hyperbolic ibm mithril oci paperspace primeintellect scp seeweb shadeform ssh vast verda \
    vsphere yotta";

pub(crate) fn is_launched_by_hand(cloud: &str) -> bool {
    BY_HAND.split(' ').any(|known| known == cloud)
}

/// Fails where a cluster is found on another one of the known clouds than was asked for: its launcher goes by its name alone.
pub(crate) fn check_cloud(
    cluster: &str,
    found: Option<&str>,
    asked: &str,
    clouds: &[&str],
) -> Result<()> {
    match found {
        Some(other)
            if other != asked && (clouds.contains(&other) || is_launched_by_hand(other)) =>
        {
            let error = format!("cluster {cluster} is on {other}, not on {asked}");
            Err(JobError::not_found(error).with_hint("pass that cloud, or another cluster_name"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::Offer;

    #[test]
    fn highest_price_has_no_digits_of_a_sum() {
        assert_ne!(3.0 * 32.7726, 98.3178);
        assert_eq!(Offer::known(3.0 * 32.7726, "").highest(), Some(98.3178));
    }
}
