"""The LightningModules, their metrics and auxiliary losses, and a trained model as a saved folder."""
