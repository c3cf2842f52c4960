"""The registry: releases of a model name, aliases that readers follow, and what every night decided."""
