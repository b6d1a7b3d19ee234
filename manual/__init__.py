"""The pages of `docs/` that are generated: from the catalogue and from the settings' models. No part of the running bridge."""
