"""What one does with geometry."""
